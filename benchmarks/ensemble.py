"""1,000 Lennard-Jones systems of 64 atoms in NVE, double precision: ours in one ensemble, OpenMM's one by one, TorchSim's batch.

rho = 0.8, T = 1, r_c = 2.1, dt = 0.004, the same starting states, on 2 threads (OpenMM's loop: the fastest of its platforms
and threads; the CPU platform computes in single precision). Contexts, models and kernels are made before the clock starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, peers_python
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.ensemble import LiquidEnsemble
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.state import ParticleState

SYSTEMS, STEP, THREADS = 1000, 0.004, 2
SYSTEM = LennardJonesLiquid(temperature=1.0, density=0.8, atoms=64, cutoff=2.1)
TARGETS = {"openmm": 10.0, "torch-sim": 5.0}
STEPS = {"ours": 200, "openmm": 100, "torch-sim": 2}  # so that a turn takes seconds
ROUNDS = 3
UNIT = "million atom-steps per second"


def run() -> list[Result]:
    """Beside each peer."""
    warm = LiquidEnsemble(LiquidEngine(SYSTEM, STEP, "bussi", thermostat_time=0.1), THREADS)
    states = warm.step(warm.init(Key.from_seed(seed) for seed in range(SYSTEMS)), 400)
    ensemble = LiquidEnsemble(LiquidEngine(SYSTEM, STEP), THREADS)

    def ours() -> float:
        begin = time.perf_counter()
        ensemble.step(states, STEPS["ours"])
        return speed(STEPS["ours"], time.perf_counter() - begin)

    results = []
    for name, target in TARGETS.items():
        with peer(name, SYSTEM, states, STEP, THREADS) as (seconds, version):
            theirs = at_speed(seconds, STEPS[name]) if seconds else None
            results.append(compare(f"ensemble-{name}", UNIT, target, ours, theirs, version, ROUNDS))
    return results


def speed(steps: int, seconds: float) -> float:
    """Of all systems together."""
    return SYSTEMS * SYSTEM.atoms * steps / seconds / 1e6


def at_speed(seconds: Callable[[int], float], steps: int) -> Callable[[], float]:
    """The speed of a peer over so many steps."""
    return lambda: speed(steps, seconds(steps))


@contextmanager
def peer(
    name: str, system: LennardJonesLiquid, states: Sequence[ParticleState], step: float, threads: int
) -> Iterator[tuple[Callable[[int], float] | None, str | None]]:
    """A function that tells the seconds a peer takes for so many steps, and its version; None where it is not installed."""
    python = peers_python()
    if python is None:
        yield None, None
        return
    with tempfile.TemporaryDirectory(prefix="manybody-ensemble-") as folder:
        given = Path(folder) / "states.npz"
        x, v = (np.stack([getattr(state, part).numpy() for state in states]) for part in ("positions", "velocities"))
        np.savez(given, x=x, v=v, edge=system.box, cutoff=system.cutoff, step=step, threads=threads)
        command = [python, Path(__file__).with_name("ensemble_peers.py"), given, name]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, stdout = process.stdin, process.stdout
            first = stdout.readline()

            def seconds(steps: int) -> float:
                stdin.write(f"{steps}\n")
                stdin.flush()
                return float(json.loads(stdout.readline())["seconds"])

            yield (seconds, str(json.loads(first)["version"])) if first else (None, None)
