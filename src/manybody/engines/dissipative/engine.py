"""Dissipative particle dynamics of fluids, mixtures and chains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from manybody.core.random import Key
from manybody.engines.dissipative.spec import DissipativeParticles
from manybody.engines.dissipative.state import DissipativeState
from manybody.numerics.dissipative import COLUMNS, DissipativeFluid

PARTICLE_SECONDS = 1e-6  # a particle and step, about: it only sets how long a compiled call lasts
CALL_SECONDS = 0.1  # so that Ctrl-C is answered at once


class DissipativeEngine:
    """Advances dissipative particles; passes `manybody.testing.engine`. Paths have the same bits however they are cut."""

    def __init__(self, system: DissipativeParticles, time_step: float = 0.02) -> None:
        self.system, self.time_step = system, time_step
        self.fluid = DissipativeFluid(
            system.box, system.table, system.friction, system.temperature, time_step, system.beads, system.spring
        )

    def init(self, key: Key) -> DissipativeState:
        """Particles at random, chains as random walks, species at random among them, at the temperature and without momentum."""
        system = self.system
        positions, velocities = self.fluid.start(system.particles, key)
        per_chain = np.repeat(np.arange(len(system.counts)), np.array(system.counts) // system.beads)
        shuffled = key.derive("species").generator().permutation(per_chain)
        return DissipativeState(positions, velocities, np.repeat(shuffled, system.beads), np.array(system.box), key)

    def step(self, state: DissipativeState, steps: int = 1) -> DissipativeState:
        """The state `steps` time steps later. Raises `TaskError` where the run explodes."""
        return self.record(state, steps, 1)[0]

    def record(self, state: DissipativeState, stride: int, samples: int) -> tuple[DissipativeState, np.ndarray]:
        """Advance by ``samples * stride`` steps and record every `stride` of them, [samples, COLUMNS], heat since `init`.

        Raises `TaskError` where the run explodes.
        """
        rows, done = np.empty((samples, len(COLUMNS))), 0
        longest = max(1, int(CALL_SECONDS / (PARTICLE_SECONDS * self.system.particles)))
        while done < samples:
            left = stride
            while left > longest:  # too long for one call: all but the last piece go unrecorded
                state, _ = self._call(state, longest, 1)
                left -= longest
            block = 1 if left < stride else min(longest // stride, samples - done)
            state, rows[done : done + block] = self._call(state, left, block)
            done += block
        return state, rows

    def observables(self, state: DissipativeState) -> dict[str, float]:
        """Energy a particle, pressure by the virial, kinetic and configurational temperature, share of unlike pairs."""
        row = self.fluid.look(state.positions, state.velocities, state.species)
        found = dict(zip(COLUMNS, row.tolist(), strict=True))
        system, drift = self.system, state.velocities.mean(axis=0)
        kinetic = found["kinetic_energy"] - 0.5 * system.particles * float(drift @ drift)
        virial = sum(found[f"virial_{axis}"] for axis in "xyz")
        return {
            "energy": found["energy"] / system.particles,
            "pressure": system.density * system.temperature + virial / (3 * system.volume),
            "temperature": kinetic / (1.5 * (system.particles - 1)),
            "squared_force": found["squared_force"] / system.particles,
            "unlike_pairs": found["unlike_pairs"] / system.particles,
        }

    def conserved(self, state: DissipativeState) -> dict[str, float]:
        """The momentum, in thermal momenta of one particle."""
        total = state.velocities.sum(axis=0) / math.sqrt(self.system.temperature)
        return {f"momentum_{axis}": value for axis, value in zip("xyz", total.tolist(), strict=True)}

    def symmetric(self, state: DissipativeState, key: Key) -> Iterator[tuple[str, DissipativeState]]:
        """A random image of `state` under each symmetry of the system."""
        generator, system = key.generator(), self.system
        yield "translation", replace(state, positions=state.positions + generator.uniform(-1, 1, 3) * state.box)
        chains = generator.permutation(system.chains)
        order = (chains[:, None] * system.beads + np.arange(system.beads)).ravel()
        shuffled = {name: getattr(state, name)[order] for name in ("positions", "velocities", "species")}
        yield "permutation", replace(state, **shuffled)
        signs = np.array([-1.0, 1.0, 1.0])
        yield "reflection", replace(state, positions=state.positions * signs, velocities=state.velocities * signs)
        yield "rest frame", replace(state, velocities=state.velocities + generator.standard_normal(3))

    def _call(self, state: DissipativeState, stride: int, samples: int) -> tuple[DissipativeState, np.ndarray]:
        """One compiled call; the state after it, and what was recorded each `stride` steps [samples, COLUMNS]."""
        x, v, rows = self.fluid.advance(
            state.positions, state.velocities, state.key, state.step, stride, samples, state.species
        )  # fmt: skip
        rows[:, -1] += state.heat
        step = state.step + stride * samples
        return replace(state, positions=x, velocities=v, step=step, heat=float(rows[-1, -1])), rows
