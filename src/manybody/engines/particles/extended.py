"""Extended systems: constant temperature by Nosé-Hoover chains, constant pressure by the barostat of Martyna, Tobias and Klein.

Baths and piston act outside of stretches of velocity Verlet (XO-RESPA: G. J. Martyna, M. E. Tuckerman, D. J. Tobias and
M. L. Klein, Mol. Phys. 87, 1117 (1996), section 4). With D = `stride` time steps, a cycle is

    chains(D/2) push(D/2) dilate(D/2) Verlet(D) dilate(D/2) push(D/2) chains(D/2),

symmetric, time-reversible, and of second order in D. No random number is drawn after the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from manybody.core.random import Key
from manybody.engines.particles.engine import ExplodedError, LiquidEngine
from manybody.engines.particles.known_answers import pressure_tail
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.state import ParticleState
from manybody.numerics.barostats import Piston
from manybody.numerics.nose_hoover import NoseHooverChain


@dataclass(frozen=True)
class ExtendedState:
    """Particles, the chain of their heat bath and that of the piston's, [2, length] each, and the piston's strain rate.

    potential_energy (shifted) and virial are those of the positions.
    """

    particles: ParticleState
    chain: np.ndarray
    piston_chain: np.ndarray
    rate: float
    potential_energy: float
    virial: float


@dataclass(frozen=True)
class ExtendedTrace:
    """What cycles recorded, [cycles] each: energies of the particles, virial, volume, and the conserved energy of all."""

    potential_energy: np.ndarray
    kinetic_energy: np.ndarray
    virial: np.ndarray
    volume: np.ndarray
    conserved: np.ndarray


class ExtendedEngine:
    """A Lennard-Jones system with Nosé-Hoover chains, and a piston where `pressure` is given; a step is a cycle.

    Passes `manybody.testing.engine`. Where the system has its tail correction, the pressure of pairs beyond the cutoff is
    added at g(r) = 1. With the piston the volume is distributed as `manybody.numerics.barostats` says.
    """

    def __init__(
        self,
        system: LennardJonesLiquid,
        pressure: float | None = None,
        time_step: float = 0.004,
        thermostat_time: float = 0.5,
        piston_time: float = 1.0,
        chain_length: int = 3,
        stride: int = 5,
        threads: int = 1,
    ) -> None:
        self.liquid = LiquidEngine(system, time_step, "none", threads=threads)
        kT, freedom = system.temperature, float(self.liquid.freedom)
        self.bath = NoseHooverChain(kT, thermostat_time, freedom, chain_length)
        self.piston_bath = NoseHooverChain(kT, piston_time, 1.0, chain_length)
        self.piston = None if pressure is None else Piston(pressure, kT, piston_time, freedom)
        self.stride = stride
        self.tail = pressure_tail(1.0, system.cutoff) if system.tail_correction and self.piston else 0.0

    def init(self, key: Key) -> ExtendedState:
        """The lattice of the system's density, as `LiquidEngine.init` has it; baths and piston at rest."""
        return self.adopt(self.liquid.init(key))

    def adopt(self, particles: ParticleState) -> ExtendedState:
        """Particles from elsewhere, with baths and piston at rest."""
        return ExtendedState(particles, self.bath.rest, self.piston_bath.rest, 0.0, *self._evaluate(particles))

    def step(self, state: ExtendedState, steps: int = 1) -> ExtendedState:
        """The state `steps` cycles later."""
        return self.record(state, steps)[0]

    def record(self, state: ExtendedState, cycles: int) -> tuple[ExtendedState, ExtendedTrace]:
        """Advance by `cycles`. Raises `ExplodedError` where the run explodes or the box falls below twice the cutoff."""
        self.liquid.refuse_runaway(state.particles)  # one atom's haste would reach all others through the bath at once
        rows = np.empty((cycles, 5))
        for row in rows:
            before = state.particles
            try:
                state = self._cycle(state)
            except ExplodedError as error:
                raise ExplodedError(str(error), before) from error
            kinetic, volume = _kinetic(state.particles), float(state.particles.box.prod())
            row[:] = state.potential_energy, kinetic, state.virial, volume, self._energy(state, kinetic, volume)
        return state, ExtendedTrace(*rows.T.copy())

    def observables(self, state: ExtendedState) -> dict[str, float]:
        """Those of the particles, and the density."""
        density = self.liquid.system.atoms / float(state.particles.box.prod())
        return self.liquid.observables(state.particles) | {"density": density}

    def conserved(self, state: ExtendedState) -> dict[str, float]:
        """The energy of particles, baths and piston, in units of kT a degree of freedom."""
        volume = float(state.particles.box.prod())
        return {"extended_energy": self._energy(state, _kinetic(state.particles), volume) / (self.bath.freedom * self.bath.kT)}

    def symmetric(self, state: ExtendedState, key: Key) -> Iterator[tuple[str, ExtendedState]]:
        """A random image of `state` under each symmetry of the system."""
        for name, image in self.liquid.symmetric(state.particles, key):
            yield name, replace(state, particles=image)

    @staticmethod
    def reversed(state: ExtendedState) -> ExtendedState:
        """The state with all motion reversed."""
        back = np.array([[1.0], [-1.0]])
        particles = replace(state.particles, velocities=-state.particles.velocities)
        return replace(
            state, particles=particles, chain=state.chain * back, piston_chain=state.piston_chain * back, rate=-state.rate
        )

    def _cycle(self, state: ExtendedState) -> ExtendedState:
        span = self.stride * self.liquid.time_step
        state = self._dilate(self._push(self._chains(state, 0.5 * span), 0.5 * span), 0.5 * span)
        particles, trace = self.liquid.record(state.particles, self.stride, 1)
        state = replace(
            state, particles=particles, potential_energy=float(trace.potential_energy[0]), virial=float(trace.virial[0])
        )
        state = self._dilate(state, 0.5 * span)
        if self.piston is not None:
            energy, virial = self._evaluate(state.particles)
            state = replace(state, potential_energy=energy, virial=virial)
        return self._chains(self._push(state, 0.5 * span), 0.5 * span)

    def _chains(self, state: ExtendedState, time: float) -> ExtendedState:
        """Both heat baths act."""
        factor, chain = self.bath.exchange(_kinetic(state.particles), state.chain, time)
        state = replace(state, particles=_faster(state.particles, factor), chain=chain)
        if self.piston is None:
            return state
        factor, chain = self.piston_bath.exchange(0.5 * self.piston.mass * state.rate**2, state.piston_chain, time)
        return replace(state, rate=state.rate * factor, piston_chain=chain)

    def _push(self, state: ExtendedState, time: float) -> ExtendedState:
        """Pressure and piston act on each other."""
        if self.piston is None:
            return state
        volume = float(state.particles.box.prod())
        virial = state.virial + 3 * self.tail * self.liquid.system.atoms**2 / volume
        rate, factor = self.piston.push(state.rate, _kinetic(state.particles), virial, volume, time)
        return replace(state, particles=_faster(state.particles, factor), rate=rate)

    def _dilate(self, state: ExtendedState, time: float) -> ExtendedState:
        """Box and positions grow at the strain rate."""
        if self.piston is None:
            return state
        factor = math.exp(state.rate * time)
        grown = replace(state.particles, positions=state.particles.positions * factor, box=state.particles.box * factor)
        return replace(state, particles=grown)

    def _evaluate(self, particles: ParticleState) -> tuple[float, float]:
        """Potential energy (shifted) and virial."""
        self.liquid.refuse_narrow(particles.box, particles)
        _, energy, virial, pairs = self.liquid.evaluate(particles.positions, particles.box)
        return energy - self.liquid.shift * pairs, virial

    def _energy(self, state: ExtendedState, kinetic: float, volume: float) -> float:
        """What all parts conserve together."""
        energy = state.potential_energy + kinetic + self.bath.energy(state.chain)
        if self.piston is None:
            return energy
        tail = self.tail * self.liquid.system.atoms**2 / volume
        return energy + tail + self.piston.energy(state.rate, volume) + self.piston_bath.energy(state.piston_chain)


def _kinetic(particles: ParticleState) -> float:
    return 0.5 * float((particles.velocities**2).sum())


def _faster(particles: ParticleState, factor: float) -> ParticleState:
    return replace(particles, velocities=particles.velocities * factor)
