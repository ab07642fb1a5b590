"""One Lennard-Jones liquid of 4,000 atoms in NVE on 2 threads, beside OpenMM's CPU platform, TorchSim and JAX MD.

The system of `lennard-jones`, from the same starting state. OpenMM: the fastest of its platforms and threads; its CPU platform
computes in single precision, the others in double.
"""

from __future__ import annotations

import time

from benchmarks.ensemble import peer
from benchmarks.lennard_jones import equilibrated
from benchmarks.measure import Result, compare
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid

SYSTEM = LennardJonesLiquid(temperature=0.72, density=0.8442, atoms=4000, cutoff=2.5)
STEP, THREADS, ROUNDS = 0.005, 2, 3
STEPS = {"ours": 1000, "openmm": 1000, "torch-sim": 10, "jax-md": 200}  # so that a turn takes seconds
UNIT = "million atom-steps per second"


def run() -> list[Result]:
    """Beside each peer."""
    start = equilibrated(SYSTEM)
    engine = LiquidEngine(SYSTEM, STEP, threads=THREADS)

    def ours() -> float:
        begin = time.perf_counter()
        engine.record(start, 100, STEPS["ours"] // 100)
        return speed(STEPS["ours"], time.perf_counter() - begin)

    results = []
    for name in ("openmm", "torch-sim", "jax-md"):
        with peer(name, SYSTEM, [start], STEP, THREADS) as (seconds, version):
            theirs = (lambda name=name, seconds=seconds: speed(STEPS[name], seconds(STEPS[name]))) if seconds else None
            results.append(compare(f"liquid-{name}", UNIT, 1.0, ours, theirs, version, ROUNDS))
    return results


def speed(steps: int, seconds: float) -> float:
    """Of the whole liquid."""
    return SYSTEM.atoms * steps / seconds / 1e6
