"""Many independent systems of one kind, advanced together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from manybody.core.random import Key
from manybody.engines.particles.engine import CALL_SECONDS, LiquidEngine, Trace, in_calls
from manybody.engines.particles.state import ParticleState
from manybody.numerics.integrators import LANGEVIN
from manybody.numerics.lane_template import LANES
from manybody.numerics.lanes import LaneKernel, filled, groups
from manybody.numerics.pairs import PairPotential

T = TypeVar("T")
R = TypeVar("R")
Recorded = tuple[ParticleState, Trace]

SIDE_BY_SIDE = 200  # atoms, up to which systems in the lanes of a register are faster than each with lists of neighbours
PAIR_SECONDS = 1e-8  # a pair in all lanes and step, about: it only sets how long a compiled call lasts
MOST_NOISE = 1_000_000  # random numbers of a call: bounds the memory


class LiquidEnsemble:
    """Systems that one engine advances, on `threads` threads; results are in the order of the states.

    Up to `SIDE_BY_SIDE` atoms, `LANES` systems of equal boxes share a compiled call, one in each lane of a SIMD register;
    beyond it, where boxes differ or the potential is a table, each has a call of its own. A system's bits do not depend on the
    others or on the number of threads. Compiled calls are free of the interpreter lock: ask for a hundred steps or more.
    """

    def __init__(self, engine: LiquidEngine, threads: int = 1) -> None:
        self.engine = engine
        self.threads = threads
        potential = engine.kernel.potential
        self.kernel = LaneKernel(potential, engine.kernel.values) if isinstance(potential, PairPotential) else None

    def init(self, keys: Iterable[Key]) -> list[ParticleState]:
        """A starting state for each key."""
        return [self.engine.init(key) for key in keys]

    def step(self, states: Sequence[ParticleState], steps: int = 1) -> list[ParticleState]:
        """All states `steps` time steps later. Raises `TaskError` where a system explodes."""
        return [state for state, _ in self.record(states, steps, 1)]

    def record(self, states: Sequence[ParticleState], stride: int, samples: int) -> list[Recorded]:
        """Advance all by ``samples * stride`` steps, with every `stride` of them recorded."""
        kernel = self.kernel
        alike = all(torch.equal(state.box, states[0].box) for state in states)
        if kernel is None or self.engine.device != "cpu" or self.engine.system.atoms > SIDE_BY_SIDE or not alike:
            return self._each(lambda state: self.engine.record(state, stride, samples), states)
        together = self._each(lambda group: self._record(kernel, states[group], stride, samples), groups(len(states)))
        return [each for group in together for each in group]

    def _each(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        if self.threads == 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(work, items))

    def _record(self, kernel: LaneKernel, group: Sequence[ParticleState], stride: int, samples: int) -> list[Recorded]:
        """`record` of at most `LANES` systems."""
        self.engine.refuse_narrow(group[0].box, group[0])
        rows = np.empty((samples, LANES, 8))
        for steps, block in in_calls(rows, stride, self._longest()):
            group = self._call(kernel, group, steps, block)
        return [(state, self.engine.trace(rows[:, lane])) for lane, state in enumerate(group)]

    def _longest(self) -> int:
        """Steps of one compiled call; a matter of the system alone."""
        atoms = self.engine.system.atoms
        steps = int(CALL_SECONDS / (PAIR_SECONDS * 0.5 * atoms**2))
        return max(1, min(steps, MOST_NOISE // (atoms * LANES)) if self.engine.bath.kind == LANGEVIN else steps)

    def _call(self, kernel: LaneKernel, group: Sequence[ParticleState], stride: int, rows: np.ndarray) -> list[ParticleState]:
        """One compiled call: ``len(rows) * stride`` steps, recorded into `rows` [samples, LANES, 8]."""
        engine, bath, steps = self.engine, self.engine.bath, len(rows) * stride
        x, v = (filled(np.stack([getattr(state, part).numpy() for state in group])) for part in ("positions", "velocities"))
        drawn = [bath.noise(state.key, state.step, steps, engine.system.atoms) for state in group]
        noise, chi2 = (filled(np.stack([each[part] for each in drawn])) for part in range(2))
        step, lane, atom = kernel.module.advance(
            x, v, group[0].box.numpy(), engine.system.cutoff, kernel.values, engine.time_step,
            bath.kind, bath.decay(engine.time_step), bath.kT, float(bath.freedom), noise, chi2, stride, rows,
        )  # fmt: skip
        if lane >= 0:
            state = group[min(lane, len(group) - 1)]
            raise engine.exploded(state, state.step + step, atom)
        rows[:, : len(group), 4] += [state.heat for state in group]
        return [
            replace(
                state,
                positions=torch.from_numpy(x[lane]),
                velocities=torch.from_numpy(v[lane]),
                step=state.step + steps,
                heat=float(rows[-1, lane, 4]),
            )
            for lane, state in enumerate(group)
        ]
