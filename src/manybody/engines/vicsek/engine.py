"""Steps of a flock in a periodic square."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.vicsek.spec import VicsekFlock
from manybody.engines.vicsek.state import FlockState
from manybody.numerics import jit
from manybody.numerics.brownian import NOISE_CHUNK
from manybody.numerics.flocking import advance_flock, align, random_turns

CALL_NUMBERS = 1_000_000  # random numbers a compiled call takes, about: bounds its memory, and the wait after Ctrl-C


class VicsekEngine:
    """Advances a flock; passes `manybody.testing.engine`. Same bits on any number of threads, however a path is cut."""

    def __init__(self, system: VicsekFlock, threads: int = 1) -> None:
        jit.start_threads()
        self.system, self.threads = system, min(threads, jit.most_threads())

    def init(self, key: Key) -> FlockState:
        """Positions and headings at random."""
        generator, count, edge = key.derive("start").generator(), self.system.particles, self.system.edge
        return FlockState(generator.uniform(0, edge, (count, 2)), generator.uniform(-math.pi, math.pi, count), edge, key)

    def step(self, state: FlockState, steps: int = 1) -> FlockState:
        """The state `steps` steps later. Raises `TaskError` where a position or a heading is no number."""
        count, end = self.system.particles, state.step + steps
        if not (np.isfinite(state.positions).all() and np.isfinite(state.angles).all()):
            raise TaskError(f"Step {state.step}: a position or a heading is no finite number. Compute the state again.")
        longest = max(1, CALL_NUMBERS // (NOISE_CHUNK * count)) * NOISE_CHUNK
        while state.step < end:
            block = min(longest - state.step % NOISE_CHUNK, end - state.step)
            state = self.moved(state, random_turns(state.key, state.step, block, count, self.system.noise))
        return state

    def moved(self, state: FlockState, turns: np.ndarray) -> FlockState:
        """The state after as many steps as `turns` [steps, particles] has rows; radians."""
        system = self.system
        positions, angles = advance_flock(
            state.positions, state.angles, state.edge, system.radius, system.speed, turns, self.threads
        )
        return replace(state, positions=positions, angles=angles, step=state.step + len(turns))

    def surroundings(self, state: FlockState) -> np.ndarray:
        """The sum of the headings around each particle, its own among them, [particles, 2]."""
        out = np.empty_like(state.positions)
        align(state.positions, headings(state.angles), state.edge, self.system.radius, self.threads, out)
        return out

    def observables(self, state: FlockState) -> dict[str, float]:
        """The order parameter, that of the mean directions of all neighbourhoods, and how well a particle fits in its own."""
        around = self.surroundings(state)
        along = (around * headings(state.angles)).sum(axis=1) / np.hypot(*around.T)
        return {"order": order(state.angles), "direction_order": direction_order(around), "fit": float(along.mean())}

    def conserved(self, state: FlockState) -> dict[str, float]:
        """Nothing: aligning creates momentum."""
        return {}

    def symmetric(self, state: FlockState, key: Key) -> Iterator[tuple[str, FlockState]]:
        """A random image of `state` under each symmetry of the system."""
        generator, x = key.generator(), state.positions
        yield "translation", replace(state, positions=x + generator.uniform(-state.edge, state.edge, 2))
        mixed = generator.permutation(self.system.particles)
        yield "permutation", replace(state, positions=x[mixed], angles=state.angles[mixed])
        turned = np.stack([-x[:, 1], x[:, 0]], axis=1)
        yield "right angle", replace(state, positions=turned, angles=state.angles + math.pi / 2)
        yield "reflection", replace(state, positions=x * [-1.0, 1.0], angles=math.pi - state.angles)


def headings(angles: np.ndarray) -> np.ndarray:
    """(cos theta, sin theta), [particles, 2]."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def order(angles: np.ndarray) -> float:
    """The length of the mean heading."""
    return float(np.hypot(*headings(angles).mean(axis=0)))


def direction_order(around: np.ndarray) -> float:
    """The length of the mean of all directions of the sums [particles, 2]; a sum of nothing points along x, as in a step."""
    return order(np.arctan2(around[:, 1], around[:, 0]))
