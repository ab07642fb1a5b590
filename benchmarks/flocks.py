"""Vicsek's flocks beside the plain way to write them: SciPy's k-d tree and a sparse matrix product.

16,384 particles at density 4, noise 2, speed 0.3: an ordered flock. The sums of headings are held against each other first.
Ours runs on one thread, timed as both by the processor's clock, and on two, timed by the wall's; the plain way on one.
"""

from __future__ import annotations

import math
import time
from importlib.metadata import version

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from benchmarks.measure import Result, compare
from manybody.core.random import Key
from manybody.engines.vicsek.engine import VicsekEngine, headings
from manybody.engines.vicsek.spec import VicsekFlock
from manybody.engines.vicsek.state import FlockState
from manybody.numerics.flocking import random_turns

SYSTEM = VicsekFlock(particles=16_384, noise=2.0, speed=0.3)
STEPS, PLAIN_STEPS, ROUNDS = 64, 8, 5
TARGETS = {1: 10.0, 2: 8.0}
UNIT = {1: "million particle-steps per CPU second", 2: "million particle-steps per second"}


def run() -> list[Result]:
    """On one thread and on two."""
    return [run_threads(threads) for threads in TARGETS]


def run_threads(threads: int) -> Result:
    """Both from the same flock; random numbers are drawn by both."""
    engine = VicsekEngine(SYSTEM, threads)
    state = engine.step(engine.init(Key.from_seed(1)), 200)
    refuse_other_physics(engine, state)
    clock = time.process_time if threads == 1 else time.perf_counter

    def ours() -> float:
        begin = clock()
        engine.step(state, STEPS)
        return SYSTEM.particles * STEPS / (clock() - begin) / 1e6

    def plain() -> float:
        begin = clock()
        plain_steps(state, PLAIN_STEPS)
        return SYSTEM.particles * PLAIN_STEPS / (clock() - begin) / 1e6

    return compare(f"flocks-threads-{threads}", UNIT[threads], TARGETS[threads], ours, plain, f"SciPy {version('scipy')}", ROUNDS)


def plain_sums(positions: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The sums of headings within the radius, [particles, 2]."""
    edge = SYSTEM.edge
    wrapped = np.mod(positions, edge)
    tree = cKDTree(np.where(wrapped < edge, wrapped, 0.0), boxsize=edge)
    first, second = tree.query_pairs(SYSTEM.radius, output_type="ndarray").T
    upper = csr_array((np.ones(len(first)), (first, second)), shape=(len(angles), len(angles)))
    heading = headings(angles)
    return np.asarray(heading + upper @ heading + upper.T @ heading)


def plain_steps(state: FlockState, steps: int) -> None:
    """As many steps by arrays."""
    positions, angles = state.positions, state.angles
    turns = random_turns(state.key, state.step, steps, SYSTEM.particles, SYSTEM.noise)
    for turn in turns:
        total = plain_sums(positions, angles)
        positions = positions + SYSTEM.speed * headings(angles)
        angles = np.arctan2(total[:, 1], total[:, 0]) + turn


def refuse_other_physics(engine: VicsekEngine, state: FlockState) -> None:
    """Raise where the sums are not the same."""
    apart = float(np.abs(engine.surroundings(state) - plain_sums(state.positions, state.angles)).max())
    if not apart < 1e-9 * math.sqrt(SYSTEM.particles):
        raise RuntimeError(f"Expected equal sums of headings; they differ by {apart:.2g}.")
