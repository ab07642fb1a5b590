"""A mixture of two species beside the kernel of one: the same atoms, cutoff and density, NVE, on one and on two threads.

Both species are alike, so that the physics is that of the Lennard-Jones liquid; forces are held against its kernel's first,
and the bits of two threads against those of one. What sorting by species costs is the ratio.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from benchmarks.measure import Result, compare
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.sheared.engine import ShearedEngine
from manybody.engines.sheared.spec import LennardJonesMixture
from manybody.engines.sheared.state import MixtureState

ATOMS, STEPS, ROUNDS = 4000, 500, 5
TARGETS = {1: 0.8, 2: 0.8}
UNIT = {1: "million atom-steps per CPU second", 2: "million atom-steps per second"}
FORCE_DEVIATION = 1e-12


def run() -> list[Result]:
    """On one thread and on two."""
    return [run_threads(threads) for threads in TARGETS]


def run_threads(threads: int) -> Result:
    """A liquid at its temperature, by either engine in turn."""
    alike = ((1.0, 1.0), (1.0, 1.0))
    liquid = LennardJonesLiquid(temperature=0.72, density=0.8442, atoms=ATOMS, cutoff=2.5)
    mixture = LennardJonesMixture(temperature=0.72, density=0.8442, atoms=ATOMS, cutoff=2.5, sigma=alike, epsilon=alike)
    melt, single = LiquidEngine(liquid, 0.005, "bussi", temperature=1.8), LiquidEngine(liquid, 0.005, threads=threads)
    cold = LiquidEngine(liquid, 0.005, "bussi", thermostat_time=0.1)
    start = cold.step(melt.step(melt.init(Key.from_seed(1)), 400), 600)
    engine = ShearedEngine(mixture, 0.005, 0.0, "none", threads=threads)
    state = replace(engine.init(Key.from_seed(2)), positions=start.positions.numpy(), velocities=start.velocities.numpy())
    refuse_other_physics(engine, state, single.kernel.evaluate(state.positions, start.box.numpy(), 2.5)[0])
    clock = time.process_time if threads == 1 else time.perf_counter

    def ours() -> float:
        begin = clock()
        engine.record(state, 100, STEPS // 100)
        return ATOMS * STEPS / (clock() - begin) / 1e6

    def theirs() -> float:
        begin = clock()
        single.record(start, 100, STEPS // 100)
        return ATOMS * STEPS / (clock() - begin) / 1e6

    name = f"mixture-{ATOMS}-threads-{threads}"
    return compare(name, UNIT[threads], TARGETS[threads], ours, theirs, "one species", ROUNDS)


def refuse_other_physics(engine: ShearedEngine, state: MixtureState, expected: np.ndarray) -> None:
    """Raise where forces are not those of one species, or where two threads give other bits than one."""
    found = engine.kernel.evaluate(state.positions, state.species, state.cell, engine.threads).forces
    deviation = np.abs(found - expected).max() / np.abs(expected).max()
    serial = ShearedEngine(engine.system, engine.time_step, engine.shear_rate, "none")
    same = np.array_equal(serial.step(state, 20).positions, engine.step(state, 20).positions)
    if deviation > FORCE_DEVIATION or not same:
        raise RuntimeError(f"Expected the forces of one species and equal bits; forces deviate by {deviation:.2g}, bits: {same}.")
