"""Constant pressure by Monte Carlo: stretches of dynamics, and between them trial changes of the box."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from manybody.core.dynamics import Thermostat
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.fluids import PairFluid
from manybody.engines.particles.spec import Precision
from manybody.engines.particles.state import ParticleState
from manybody.numerics.barostats import Coupling, VolumeMoves, log_acceptance_at_constant_enthalpy
from manybody.numerics.integrators import NO_BATH


@dataclass(frozen=True)
class BoxTrace:
    """What cycles recorded: `particles` at the end of each stretch of dynamics, box [cycles, 3] then, and trials taken."""

    particles: Trace
    box: np.ndarray
    accepted: int


class VolumeMoveEngine:
    """A fluid at a constant `pressure`; passes `manybody.testing.engine`. A step is a cycle.

    A cycle is `stride` time steps, then one trial change of the box (`VolumeMoves`): exact for any stride. With a heat bath
    the temperature is constant; with thermostat ``none`` it is the enthalpy, and trials are paid from the kinetic energy.
    `size` is the largest change of ln V in a trial; by default 0.5 / sqrt(atoms), which suits liquids. Where the system has
    its tail correction, pairs beyond the cutoff count with the free energy N p_tail / density, at g(r) = 1, of which the
    tail of the pressure is the derivative.
    """

    def __init__(
        self,
        system: PairFluid,
        pressure: float,
        time_step: float = 0.004,
        thermostat: Thermostat = "bussi",
        thermostat_time: float = 0.5,
        coupling: Coupling = "isotropic",
        size: float | None = None,
        stride: int = 25,
        device: str = "cpu",
        threads: int = 1,
        precision: Precision = "double",
    ) -> None:
        self.liquid = LiquidEngine(system, time_step, thermostat, thermostat_time, None, device, threads, precision)
        self.moves = VolumeMoves(pressure, system.temperature, coupling, size or 0.5 / math.sqrt(system.atoms))
        self.stride = stride
        self.tail = system.pressure_tail(1.0)

    def init(self, key: Key) -> ParticleState:
        """The lattice of the system's density, as `LiquidEngine.init` has it."""
        return self.liquid.init(key)

    def step(self, state: ParticleState, steps: int = 1) -> ParticleState:
        """The state `steps` cycles later."""
        return self.record(state, steps)[0]

    def record(self, state: ParticleState, cycles: int, size: float | None = None) -> tuple[ParticleState, BoxTrace]:
        """Advance by `cycles`, with trials of another `size` where it is given.

        Raises `ExplodedError` where the run explodes or the box falls below twice the cutoff.
        """
        moves = self.moves if size is None else replace(self.moves, size=size)
        traces, boxes, accepted = [], np.empty((cycles, 3)), 0
        for cycle in range(cycles):
            state, trace = self.liquid.record(state, self.stride, 1)
            traces.append(trace)
            boxes[cycle] = state.box.cpu().numpy()
            state, taken = self._move(moves, state, float(trace.potential_energy[0]))
            accepted += taken
        return state, BoxTrace(Trace.joined(traces), boxes, accepted)

    def observables(self, state: ParticleState) -> dict[str, float]:
        """Those of the liquid, and the density."""
        return self.liquid.observables(state) | {"density": self._atoms / float(state.box.prod())}

    def conserved(self, state: ParticleState) -> dict[str, float]:
        """Energy less heat and work, in units of kT a degree of freedom, and momentum where no noise acts."""
        return self.liquid.conserved(state)

    def symmetric(self, state: ParticleState, key: Key) -> Iterator[tuple[str, ParticleState]]:
        """A random image of `state` under each symmetry of the system."""
        return self.liquid.symmetric(state, key)

    @property
    def _atoms(self) -> int:
        return self.liquid.system.atoms

    def _move(self, moves: VolumeMoves, state: ParticleState, energy: float) -> tuple[ParticleState, bool]:
        """One trial; `energy` is that of the state. What scaling changes in the energy of the particles counts as heat."""
        factors, threshold = moves.trial(state.key.derive("volume", state.step))
        by = torch.from_numpy(factors).to(state.box)
        trial = replace(state, positions=state.positions * by, box=state.box * by)
        self.liquid.refuse_narrow(trial.box, state)
        _, after, _, pairs = self.liquid.evaluate(trial.positions, trial.box)
        gain = after - self.liquid.shift * pairs - energy
        volume, larger = float(state.box.prod()), float(trial.box.prod())
        change = gain + self.tail * self._atoms**2 * (1 / larger - 1 / volume)
        if self.liquid.bath.kind != NO_BATH:
            taken = moves.accepts(threshold, change, volume, larger, self._atoms)
            return (replace(trial, heat=state.heat + gain), True) if taken else (state, False)
        kinetic, cost = 0.5 * float((state.velocities**2).sum()), moves.cost(change, volume, larger)
        odds = log_acceptance_at_constant_enthalpy(cost, kinetic, float(self.liquid.freedom), volume, larger, self._atoms)
        if not threshold < odds:
            return state, False
        faster = state.velocities * math.sqrt(1 - cost / kinetic)
        return replace(trial, velocities=faster, heat=state.heat + gain - cost), True
