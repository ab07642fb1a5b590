"""Brownian dynamics of active particles in a periodic square."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.active.known_answers import WELL
from manybody.engines.active.sites import Start, start_sites
from manybody.engines.active.spec import ActiveBrownianParticles
from manybody.engines.active.state import ActiveState
from manybody.numerics.brownian import NOISE_CHUNK, advance, evaluate, gaussian_noise

SKIN = 0.35  # how much further than the cutoff the list of pairs reaches: speed, not physics
CALL_NUMBERS = 1_000_000  # random numbers a compiled call takes, about: bounds its memory, and the wait after Ctrl-C


@dataclass(frozen=True)
class Look:
    """What is seen of a state.

    energy: total, kT. virial: sum over pairs of r . f, kT. advance: mean of n . dx/dt without noise, the speed at which
    disks get ahead.
    """

    energy: float
    virial: float
    advance: float


class ActiveEngine:
    """Advances active Brownian particles; passes `manybody.testing.engine`. Paths have the same bits however they are cut."""

    def __init__(self, system: ActiveBrownianParticles, time_step: float, start: Start = "lattice") -> None:
        self.system, self.time_step, self.start = system, time_step, start
        self.skin = min(SKIN, system.edge / 2 - WELL) if system.repulsion else SKIN
        self.widths = (
            math.sqrt(2 * system.diffusivity * time_step),
            math.sqrt(2 * system.rotational_diffusivity * time_step),
        )

    def init(self, key: Key) -> ActiveState:
        """A hexagonal lattice, over the square or in a strip, with vacancies where it does not fit; headings at random."""
        generator = key.derive("start").generator()
        count, edge = self.system.particles, self.system.edge
        sites = start_sites(count, edge, self.start)
        positions = sites[np.sort(generator.permutation(len(sites))[:count])]
        angles = generator.uniform(0, 2 * math.pi, count)
        return ActiveState(positions, angles, edge, np.zeros(2), key)

    def step(self, state: ActiveState, steps: int = 1) -> ActiveState:
        """The state `steps` time steps later. Raises `TaskError` where the run explodes."""
        longest = max(1, CALL_NUMBERS // (3 * NOISE_CHUNK * self.system.particles)) * NOISE_CHUNK
        end = state.step + steps
        while state.step < end:
            block = min(longest - state.step % NOISE_CHUNK, end - state.step)
            state = self.moved(state, gaussian_noise(state.key, state.step, block, self.system.particles))
        return state

    def moved(self, state: ActiveState, noise: np.ndarray) -> ActiveState:
        """The state after as many time steps as `noise` [steps, particles, 3] has rows."""
        system = self.system
        positions, angles, driven, failed, particle = advance(
            state.positions, state.angles, state.edge, system.repulsion, system.diffusivity, system.speed,
            self.widths, self.time_step, self.skin, noise,
        )  # fmt: skip
        if particle >= 0:
            raise TaskError(
                f"Step {state.step + failed}: particle {particle} moves further than half a diameter in one time step, or has "
                f"no finite position; the run has exploded. Lower `time_step` (now {self.time_step:g}), or start without "
                "overlapping particles."
            )
        return replace(state, positions=positions, angles=angles, driven=state.driven + driven, step=state.step + len(noise))

    def look(self, state: ActiveState) -> Look:
        """Energy, virial and how fast disks get ahead."""
        forces, energy, virial = evaluate(state.positions, state.edge, self.system.repulsion)
        hindered = float((headings(state.angles) * forces).sum()) / self.system.particles
        return Look(energy, virial, self.system.speed + self.system.diffusivity * hindered)

    def observables(self, state: ActiveState) -> dict[str, float]:
        """Energy a particle, virial pressure with its ideal part, advance along the heading, and polar order."""
        look = self.look(state)
        count, area = self.system.particles, state.edge**2
        return {
            "energy": look.energy / count,
            "pressure": self.system.density + look.virial / (2 * area),
            "advance": look.advance,
            "polar_order": float(np.hypot(*headings(state.angles).mean(axis=0))),
        }

    def conserved(self, state: ActiveState) -> dict[str, float]:
        """The mean position less the mean displacement by propulsion and noise, each component."""
        x, y = (state.positions.mean(axis=0) - state.driven).tolist()
        return {"centre_x": x, "centre_y": y}

    def symmetric(self, state: ActiveState, key: Key) -> Iterator[tuple[str, ActiveState]]:
        """A random image of `state` under each symmetry of the system."""
        generator = key.generator()
        yield "translation", replace(state, positions=state.positions + generator.uniform(-state.edge, state.edge, 2))
        order = generator.permutation(self.system.particles)
        yield "permutation", replace(state, positions=state.positions[order], angles=state.angles[order])
        turned = np.stack([-state.positions[:, 1], state.positions[:, 0]], axis=1)
        yield "right angle", replace(state, positions=turned, angles=state.angles + math.pi / 2)
        yield "reflection", replace(state, positions=state.positions * [-1.0, 1.0], angles=math.pi - state.angles)


def headings(angles: np.ndarray) -> np.ndarray:
    """n = (cos theta, sin theta), [particles, 2]."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
