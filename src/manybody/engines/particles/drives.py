"""What advances particles in a task, with one face for all ensembles: at constant volume, by trials of the box, by pistons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np

from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.extended import ExtendedEngine, ExtendedState
from manybody.engines.particles.state import ParticleState
from manybody.engines.particles.volume_moves import VolumeMoveEngine

S = TypeVar("S")

ACCEPTED = 0.4  # share of the trials that tuning aims at: about where the volume forgets fastest
WIDEST = 0.5  # in ln V, that tuning goes to: a gas has no use for more


@dataclass(frozen=True)
class Recorded:
    """A stretch as it was recorded: particles, [samples] each, and the edges of the box then, [samples, 3]."""

    trace: Trace
    box: np.ndarray

    def every(self, count: int) -> Recorded:
        """Each `count`-th sample, the last among them."""
        picked = slice(count - 1, None, count)
        return Recorded(
            Trace(**{field.name: getattr(self.trace, field.name)[picked] for field in fields(Trace)}), self.box[picked]
        )


class Drive(Protocol[S]):
    """Advances a state S. What `begin` is given as kept is what `kept` said of the state to go on from, to the bit."""

    liquid: LiquidEngine

    def begin(self, particles: ParticleState, kept: Mapping[str, np.ndarray]) -> S:
        """The state of these particles, with what else was kept of it; drawn at random where nothing was."""

    def record(self, state: S, stride: int, samples: int) -> tuple[S, Recorded]:
        """Advance by ``samples * stride`` time steps, with every `stride` of them recorded."""

    def particles(self, state: S) -> ParticleState:
        """The particles of a state."""

    def kept(self, state: S) -> dict[str, np.ndarray]:
        """What a state has besides its particles."""


class ConstantVolume:
    """Particles in a fixed box."""

    def __init__(self, liquid: LiquidEngine) -> None:
        self.liquid = liquid

    def begin(self, particles: ParticleState, kept: Mapping[str, np.ndarray]) -> ParticleState:
        """The particles."""
        return particles

    def record(self, state: ParticleState, stride: int, samples: int) -> tuple[ParticleState, Recorded]:
        """See `Drive`."""
        after, trace = self.liquid.record(state, stride, samples)
        return after, Recorded(trace, np.broadcast_to(state.box.cpu().numpy(), (samples, 3)))

    def particles(self, state: ParticleState) -> ParticleState:
        """The state itself."""
        return state

    def kept(self, state: ParticleState) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class TriedState:
    """Particles, and the largest change of ln V in a trial of their box."""

    particles: ParticleState
    size: float


class VolumeTrials:
    """Particles under pressure, by trials of the box between stretches of dynamics.

    `tunes` lets the size of the trials follow from how many are accepted, stretch by stretch. That breaks detailed balance, so
    it is for equilibration only.
    """

    def __init__(self, moves: VolumeMoveEngine, tunes: bool = False) -> None:
        self.moves, self.liquid, self.tunes = moves, moves.liquid, tunes

    def begin(self, particles: ParticleState, kept: Mapping[str, np.ndarray]) -> TriedState:
        """With trials as large as they were, or as the engine begins with."""
        return TriedState(particles, float(kept.get("trial_size", self.moves.moves.size)))

    def record(self, state: TriedState, stride: int, samples: int) -> tuple[TriedState, Recorded]:
        """See `Drive`; `stride` is a whole number of cycles."""
        cycles, size = stride // self.moves.stride, state.size
        particles, trace = self.moves.record(state.particles, cycles * samples, size)
        if self.tunes:
            size = min(size * math.exp(trace.accepted / (cycles * samples) - ACCEPTED), WIDEST)
        return TriedState(particles, size), Recorded(trace.particles, trace.box).every(cycles)

    def particles(self, state: TriedState) -> ParticleState:
        """The particles."""
        return state.particles

    def kept(self, state: TriedState) -> dict[str, np.ndarray]:
        """The size of the trials; their chance is drawn by the step they belong to."""
        return {"trial_size": np.array(state.size)}


class Pistons:
    """Particles with chains of Nosé and Hoover, and with pistons where they are under pressure."""

    def __init__(self, engine: ExtendedEngine) -> None:
        self.engine, self.liquid = engine, engine.liquid

    def begin(self, particles: ParticleState, kept: Mapping[str, np.ndarray]) -> ExtendedState:
        """With baths and pistons as they were, or as they are at the temperature."""
        if "chain" not in kept:
            return self.engine.thermal(particles)
        return self.engine.adopt(particles, kept["chain"], kept["piston_chain"], kept["strain_rates"])

    def record(self, state: ExtendedState, stride: int, samples: int) -> tuple[ExtendedState, Recorded]:
        """See `Drive`; `stride` is a whole number of cycles."""
        cycles = stride // self.engine.stride
        state, trace = self.engine.record(state, cycles * samples)
        return state, Recorded(trace.particles, trace.box).every(cycles)

    def particles(self, state: ExtendedState) -> ParticleState:
        """The particles without the baths."""
        return state.particles

    def kept(self, state: ExtendedState) -> dict[str, np.ndarray]:
        """Chains and strain rates."""
        return {"chain": state.chain, "piston_chain": state.piston_chain, "strain_rates": state.rates}
