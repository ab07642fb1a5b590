"""Many independent systems of one kind, advanced together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.state import ParticleState

R = TypeVar("R")


class LiquidEnsemble:
    """Systems that one engine advances, each on one thread at a time; results are in the order of the states.

    A small system fits a core's cache and leaves nothing to share out, so threads take whole systems. Every system has the
    bits that it has alone. Compiled calls are free of the interpreter lock: ask for stretches of a hundred steps or more.
    """

    def __init__(self, engine: LiquidEngine, threads: int = 1) -> None:
        self.engine = engine
        self.threads = threads

    def init(self, keys: Iterable[Key]) -> list[ParticleState]:
        """A starting state for each key."""
        return [self.engine.init(key) for key in keys]

    def step(self, states: Sequence[ParticleState], steps: int = 1) -> list[ParticleState]:
        """All states `steps` time steps later. Raises `TaskError` where a system explodes."""
        return self._each(lambda state: self.engine.step(state, steps), states)

    def record(self, states: Sequence[ParticleState], stride: int, samples: int) -> list[tuple[ParticleState, Trace]]:
        """Advance all by ``samples * stride`` steps, with every `stride` of them recorded."""
        return self._each(lambda state: self.engine.record(state, stride, samples), states)

    def _each(self, work: Callable[[ParticleState], R], states: Sequence[ParticleState]) -> list[R]:
        if self.threads == 1:
            return [work(state) for state in states]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(work, states))
