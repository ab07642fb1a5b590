"""Extended systems: constant temperature by Nosé-Hoover chains, constant pressure by the barostat of Martyna, Tobias and Klein.

Baths and piston act outside of stretches of velocity Verlet (XO-RESPA: G. J. Martyna, M. E. Tuckerman, D. J. Tobias and
M. L. Klein, Mol. Phys. 87, 1117 (1996), section 4). With D = `stride` time steps, a cycle is

    chains(D/2) push(D/2) dilate(D/2) Verlet(D) dilate(D/2) push(D/2) chains(D/2),

symmetric, time-reversible, and of second order in D. No random number is drawn after the start. The box has one strain rate,
or one for each edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.core.random import Key
from manybody.engines.particles.engine import ExplodedError, LiquidEngine, Trace
from manybody.engines.particles.fluids import PairFluid
from manybody.engines.particles.spec import BoxCoupling, Precision
from manybody.engines.particles.state import ParticleState
from manybody.numerics.barostats import EdgePistons, Piston
from manybody.numerics.nose_hoover import NoseHooverChain
from manybody.numerics.pair_sums import CompiledSums, Formula, PlainSums
from manybody.numerics.plain_pairs import PlainPairs


@dataclass(frozen=True)
class Sums:
    """What the pairs of a configuration add up to: energy (shifted), their number, and the virial by direction, [3].

    Where only its sum matters, each direction has a third of it.
    """

    energy: float
    pairs: float
    virial: np.ndarray


@dataclass(frozen=True)
class ExtendedState:
    """Particles, the chain of their heat bath and that of the piston's, [2, length] each, and strain rates by edge, [3].

    sums are those of the positions.
    """

    particles: ParticleState
    chain: np.ndarray
    piston_chain: np.ndarray
    rates: np.ndarray
    sums: Sums


@dataclass(frozen=True)
class ExtendedTrace:
    """What cycles recorded: particles, box [cycles, 3], and the conserved energy of all, [cycles].

    The heat of `particles` is what baths and piston gave, so that their energy less heat is the conserved one.
    """

    particles: Trace
    box: np.ndarray

    @property
    def volume(self) -> np.ndarray:
        """[cycles]."""
        volumes: np.ndarray = self.box.prod(axis=1)
        return volumes

    @property
    def conserved(self) -> np.ndarray:
        """The energy of particles, baths and piston, [cycles]."""
        energy: np.ndarray = self.particles.potential_energy + self.particles.kinetic_energy - self.particles.heat
        return energy


class ExtendedEngine:
    """A fluid with Nosé-Hoover chains, and a piston where `pressure` is given; a step is a cycle.

    With `coupling` ``anisotropic`` each edge has a piston of its own. Passes `manybody.testing.engine`. Where the system has
    its tail correction, the pressure of pairs beyond the cutoff is added at g(r) = 1. With the piston the volume is distributed
    as `manybody.numerics.barostats` says.
    """

    def __init__(
        self,
        system: PairFluid,
        pressure: float | None = None,
        time_step: float = 0.004,
        thermostat_time: float = 0.5,
        piston_time: float = 1.0,
        chain_length: int = 3,
        stride: int = 5,
        threads: int = 1,
        coupling: BoxCoupling = "isotropic",
        device: str = "cpu",
        precision: Precision = "double",
    ) -> None:
        self.liquid = LiquidEngine(system, time_step, "none", device=device, threads=threads, precision=precision)
        kT, freedom = system.temperature, float(self.liquid.freedom)
        kind = EdgePistons if coupling == "anisotropic" else Piston
        self.formula = _formula(self.liquid) if coupling == "anisotropic" else None
        self.bath = NoseHooverChain(kT, thermostat_time, freedom, chain_length)
        self.piston_bath = NoseHooverChain(kT, piston_time, float(kind.motions), chain_length)
        self.piston = None if pressure is None else kind(pressure, kT, piston_time, freedom)
        self.stride = stride
        self.tail = system.pressure_tail(1.0) if self.piston else 0.0

    def init(self, key: Key) -> ExtendedState:
        """The lattice of the system's density, as `LiquidEngine.init` has it; baths and piston at rest."""
        return self.adopt(self.liquid.init(key))

    def adopt(
        self,
        particles: ParticleState,
        chain: np.ndarray | None = None,
        piston_chain: np.ndarray | None = None,
        rates: np.ndarray | None = None,
    ) -> ExtendedState:
        """Particles from elsewhere, with baths and piston as given, or at rest."""
        return ExtendedState(
            particles,
            self.bath.rest if chain is None else chain,
            self.piston_bath.rest if piston_chain is None else piston_chain,
            np.zeros(3) if rates is None else rates,
            self._evaluate(particles),
        )

    def thermal(self, particles: ParticleState) -> ExtendedState:
        """Particles from elsewhere, with baths and piston that move as at the temperature, by the key of the state."""
        generator = particles.key.derive("baths", particles.step).generator()
        chains = self.bath.thermal(generator), self.piston_bath.thermal(generator)
        return self.adopt(particles, *chains, self.piston.thermal(generator) if self.piston else None)

    def step(self, state: ExtendedState, steps: int = 1) -> ExtendedState:
        """The state `steps` cycles later."""
        return self.record(state, steps)[0]

    def record(self, state: ExtendedState, cycles: int) -> tuple[ExtendedState, ExtendedTrace]:
        """Advance by `cycles`. Raises `ExplodedError` where the run explodes or the box falls below twice the cutoff."""
        self.liquid.refuse_runaway(state.particles)  # one atom's haste would reach all others through the bath at once
        rows, boxes, momenta = np.empty((cycles, 5)), np.empty((cycles, 3)), np.empty((cycles, 3))
        for cycle in range(cycles):
            before = state.particles
            try:
                state = self._cycle(state)
            except ExplodedError as error:
                raise ExplodedError(str(error), before) from error
            energy, kinetic = state.sums.energy, float(_kinetic(state.particles).sum())
            heat = energy + kinetic - self._energy(state)
            rows[cycle] = energy, float(state.sums.virial.sum()), state.sums.pairs, kinetic, heat
            boxes[cycle] = _numpy(state.particles.box)
            momenta[cycle] = _numpy(state.particles.velocities.sum(dim=0))
        energies, virials, pairs, kinetics, heats = rows.T.copy()
        return state, ExtendedTrace(Trace(energies, virials, pairs, kinetics, heats, momenta), boxes)

    def observables(self, state: ExtendedState) -> dict[str, float]:
        """Those of the particles, and the density."""
        density = self.liquid.system.atoms / _volume(state.particles)
        return self.liquid.observables(state.particles) | {"density": density}

    def conserved(self, state: ExtendedState) -> dict[str, float]:
        """The energy of particles, baths and piston, in units of kT a degree of freedom."""
        return {"extended_energy": self._energy(state) / (self.bath.freedom * self.bath.kT)}

    def symmetric(self, state: ExtendedState, key: Key) -> Iterator[tuple[str, ExtendedState]]:
        """A random image of `state` under each symmetry of the system; baths and piston are at rest, which no observable sees."""
        for name, image in self.liquid.symmetric(state.particles, key):
            yield name, self.adopt(image)

    @staticmethod
    def reversed(state: ExtendedState) -> ExtendedState:
        """The state with all motion reversed."""
        back = np.array([[1.0], [-1.0]])
        particles = replace(state.particles, velocities=-state.particles.velocities)
        return replace(
            state, particles=particles, chain=state.chain * back, piston_chain=state.piston_chain * back, rates=-state.rates
        )

    def _cycle(self, state: ExtendedState) -> ExtendedState:
        span = self.stride * self.liquid.time_step
        state = self._dilate(self._push(self._chains(state, 0.5 * span), 0.5 * span), 0.5 * span)
        particles, trace = self.liquid.record(state.particles, self.stride, 1)
        sums = Sums(float(trace.potential_energy[0]), float(trace.pairs[0]), np.full(3, float(trace.virial[0]) / 3))
        state = self._dilate(replace(state, particles=particles, sums=sums), 0.5 * span)
        if self.piston is not None:
            state = replace(state, sums=self._evaluate(state.particles))
        return self._chains(self._push(state, 0.5 * span), 0.5 * span)

    def _chains(self, state: ExtendedState, time: float) -> ExtendedState:
        """Both heat baths act."""
        factor, chain = self.bath.exchange(float(_kinetic(state.particles).sum()), state.chain, time)
        state = replace(state, particles=_faster(state.particles, np.full(3, factor)), chain=chain)
        if self.piston is None:
            return state
        factor, chain = self.piston_bath.exchange(self.piston.kinetic(state.rates), state.piston_chain, time)
        return replace(state, rates=state.rates * factor, piston_chain=chain)

    def _push(self, state: ExtendedState, time: float) -> ExtendedState:
        """Pressure and piston act on each other."""
        if self.piston is None:
            return state
        volume = _volume(state.particles)
        virial = state.sums.virial + self.tail * self.liquid.system.atoms**2 / volume
        rates, factors = self.piston.push(state.rates, _kinetic(state.particles), virial, volume, time)
        return replace(state, particles=_faster(state.particles, factors), rates=rates)

    def _dilate(self, state: ExtendedState, time: float) -> ExtendedState:
        """Box and positions grow at the strain rates."""
        if self.piston is None:
            return state
        by = torch.from_numpy(np.exp(state.rates * time)).to(state.particles.box)
        grown = replace(state.particles, positions=state.particles.positions * by, box=state.particles.box * by)
        return replace(state, particles=grown)

    def _evaluate(self, particles: ParticleState) -> Sums:
        """The sums over pairs; the virial by direction where edges move for themselves."""
        self.liquid.refuse_narrow(particles.box, particles)
        _, energy, virial, pairs = self.liquid.evaluate(particles.positions, particles.box)
        by_direction = np.full(3, virial / 3) if self.formula is None else self._virials(self.formula, particles)
        return Sums(energy - self.liquid.shift * pairs, pairs, by_direction)

    def _virials(self, formula: Formula, particles: ParticleState) -> np.ndarray:
        """Minus the derivative of the energy by the logarithm of each edge, positions scaled along, [3]."""
        x, box = particles.positions, particles.box
        sums = CompiledSums if self.liquid.device == "cpu" else PlainSums
        table = torch.from_numpy(self.liquid.kernel.values).to(x)[None, None]
        species = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        by_atom, by_cell, _ = sums(
            formula, x, torch.diag(box), table, species, self.liquid.system.cutoff, shifted=False
        ).gradients()
        return -_numpy((x * by_atom).sum(dim=0) + box * torch.diagonal(by_cell))

    def _energy(self, state: ExtendedState) -> float:
        """What all parts conserve together."""
        energy = state.sums.energy + float(_kinetic(state.particles).sum()) + self.bath.energy(state.chain)
        if self.piston is None:
            return energy
        volume = _volume(state.particles)
        work = self.piston.pressure * volume + self.tail * self.liquid.system.atoms**2 / volume
        return energy + work + self.piston.kinetic(state.rates) + self.piston_bath.energy(state.piston_chain)


def _formula(liquid: LiquidEngine) -> Formula:
    """The formula of the potential, of which the virial by direction is derived."""
    if not isinstance(liquid.plain, PlainPairs):
        remedy = "Take `isotropic`, or trials of the box."
        raise InputError(Problem("coupling", "a potential with a formula for pistons at the edges", "a table", remedy))
    return Formula(liquid.plain.potential.expression, liquid.plain.potential.parameters)


def _numpy(tensor: Tensor) -> np.ndarray:
    values: np.ndarray = tensor.cpu().numpy()
    return values


def _kinetic(particles: ParticleState) -> np.ndarray:
    """The kinetic energy of each direction, [3]."""
    return _numpy(0.5 * (particles.velocities**2).sum(dim=0))


def _volume(particles: ParticleState) -> float:
    return float(particles.box.prod())


def _faster(particles: ParticleState, factors: np.ndarray) -> ParticleState:
    return replace(particles, velocities=particles.velocities * torch.from_numpy(factors).to(particles.velocities))
