"""A crystal beside its melt, and the dynamics that finds their melting point: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import PRESSURE, Length, Temperature, Time
from manybody.engines.particles.known_answers import pressure_tail
from manybody.engines.particles.melting.known_answers import HIGHEST, LOWEST, melting_densities, melting_pressure

STRIDE = 25  # time steps between trial changes of the box
HELD = 1.0  # tau at the start temperature: velocities and interfaces settle, the crystal changes by less than a layer
PAIR_SECONDS = 9e-9  # core-seconds a pair and step, trials of the box included


class LennardJonesCoexistence(SystemSpec):
    """An fcc crystal and its melt side by side in a long periodic box, at a pressure along it.

    The particles interact by 4 (r^-12 - r^-6), shifted to zero at the cutoff; `pressure` is that of the full potential.
    """

    summary: ClassVar[str] = "an fcc crystal and its melt side by side in a long box, at a given pressure"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation")
    conserved: ClassVar[tuple[str, ...]] = ("enthalpy", "momentum")

    name: Literal["lennard-jones-coexistence"] = "lennard-jones-coexistence"
    pressure: Annotated[float, PRESSURE] = Field(
        4.0, gt=0, description="pressure of the full potential, where the melting point is sought"
    )
    temperature: Temperature = Field(
        1.0, ge=LOWEST, le=HIGHEST, description="at which both phases are prepared: about the melting point"
    )
    cells: int = Field(6, ge=4, le=40, description="cubic cells of the crystal across the box")
    length: int = Field(20, ge=8, le=400, multiple_of=2, description="cells along the box, were it all crystal; half of it is")
    cutoff: Length = Field(3.0, gt=1.5, description="pairs further apart do not interact; at most half the box's width")

    @property
    def atoms(self) -> int:
        """Four a cell."""
        return 4 * self.cells**2 * self.length

    @property
    def virial_pressure(self) -> float:
        """About the pressure of the cut potential where it melts at the temperature of the full one.

        Pairs beyond the cutoff, at g(r) = 1, add p_tail = a rho^2 to the pressure and 2 a rho to the chemical potential of
        each phase, a < 0: the phases then coexist at a pressure that is a rho_crystal rho_liquid higher.
        """
        crystal, liquid = melting_densities(self.temperature)
        return self.pressure - pressure_tail(1.0, self.cutoff) * crystal * liquid

    @model_validator(mode="after")
    def _fits(self) -> LennardJonesCoexistence:
        width = self.cells * math.cbrt(4 / melting_densities(self.temperature)[0])
        if self.cutoff > 0.48 * width:
            refuse("cutoff", f"at most half the box's width, about {0.48 * width:.3g}", f"{self.cutoff:g}", "Take more cells.")
        expected = melting_pressure(self.temperature)
        if abs(self.pressure - expected) > 1.0:  # further off one phase would be used up
            remedy = f"Prepare at a temperature closer to the melting point, or take a pressure near {expected:.3g}."
            refuse(
                "pressure", f"within 1 of the melting pressure at this temperature, {expected:.3g}", f"{self.pressure:g}", remedy
            )
        return self


class Stretch(Sampled):
    """One stretch of dynamics: what a node needs to know to compute it."""

    temperature: float
    bins: int

    @property
    def cycles(self) -> int:
        """Cycles of `STRIDE` time steps between samples."""
        return max(1, round(self.sample_every / (STRIDE * self.time_step)))


class CoexistenceDynamics(MethodSpec):
    """Velocity Verlet at constant enthalpy, the box's length changing by Monte Carlo at a constant pressure.

    Nothing sets the temperature: where it is above the melting point the crystal melts and takes up heat, below it grows and
    gives heat off, until both coexist. A realisation prepares the crystal, the liquid on its cross-section, and both joined at
    `start_temperature`; it settles, and is then measured segment by segment.
    """

    summary: ClassVar[str] = "a crystal and its melt at constant enthalpy and pressure: they settle at the melting point"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("lennard-jones-coexistence",)
    stages: ClassVar[Mapping[str, str]] = {
        stage: f"manybody.engines.particles.melting.stages:{stage}"
        for stage in ("crystal", "liquid", "join", "settle", "produce", "conserve")
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="in a fixed box the energy fluctuates with the square of the time step (velocity Verlet)",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "lennard-jones-coexistence", "cells": 4, "length": 8, "cutoff": 2.5},
        {"preparation": 10.0},
    )

    name: Literal["coexistence-dynamics"] = "coexistence-dynamics"
    start_temperature: Temperature = Field(1.0, gt=0, description="of crystal and liquid when they are joined")
    time_step: Time = Field(0.004, gt=0, le=0.01, description="time step")
    preparation: Time = Field(50.0, gt=0, description="simulated time for each phase alone")
    equilibration: Time = Field(150.0, gt=0, description="simulated time that the joined phases settle, not measured")
    duration: Time = Field(200.0, gt=0, description="simulated time that is measured, each repeat")
    segment: Time = Field(100.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.2, gt=0, description="simulated time between samples; whole cycles of 25 time steps")
    frame_every: Time = Field(2.0, gt=0, description="simulated time between stored configurations and profiles")
    bins: int = Field(16, ge=4, le=200, description="slabs along the box in which the pressure is measured")

    @model_validator(mode="after")
    def _times_nest(self) -> CoexistenceDynamics:
        cycles = self.sample_every / (STRIDE * self.time_step)
        if cycles < 1 - 1e-9 or abs(cycles - round(cycles)) > 1e-6 * cycles:
            cycle = STRIDE * self.time_step
            came, remedy = f"{self.sample_every:g}", f"Take {max(1, round(cycles)) * cycle:g}."
            refuse("sample_every", f"a whole multiple of {STRIDE} time steps, {cycle:g}", came, remedy)
        for field, inner in (("frame_every", "sample_every"), ("segment", "frame_every"), ("equilibration", "frame_every")):
            refuse_unless_multiple(self, field, inner)
        return self

    def stretch(self, system: LennardJonesCoexistence, **changes: Any) -> Stretch:
        """A stretch with this method's settings, changed where said; `time` always is."""
        fields = {field: getattr(self, field) for field in ("time_step", "sample_every", "frame_every", "bins")}
        return Stretch.model_validate(fields | {"temperature": system.temperature} | changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Crystal, liquid, both joined, settled, then as many segments as the duration takes.

        Points that differ in the start temperature share the phases.
        """
        assert isinstance(system, LennardJonesCoexistence)

        def task(stage: str, stretch: Stretch, **inputs: Task) -> Task:
            return self._task(stage, system, stretch, seed, repeat, {name: given.digest for name, given in inputs.items()})

        alone = self.stretch(system, time=self.preparation)
        crystal = task("crystal", alone)
        liquid = task("liquid", alone, crystal=crystal)
        hot = self.stretch(system, time=HELD, temperature=self.start_temperature)
        joined = task("join", hot, crystal=crystal, liquid=liquid)
        tasks = [crystal, liquid, joined, task("settle", self.stretch(system, time=self.equilibration), state=joined)]
        for _ in range(segments(self.duration, self.segment)):
            tasks.append(task("produce", self.stretch(system, time=self.segment), state=tasks[-1]))
        return tuple(tasks), tuple(tasks[4:])

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The enthalpy, and the momentum."""
        assert isinstance(system, LennardJonesCoexistence)
        # What leaks into the enthalpy shifts the share of the crystal, not the temperature, while both phases are there: a
        # hundredth of the heat of melting, about 0.4 kT a degree of freedom, over the whole measured time changes neither.
        leak = 0.004
        steps = round(self.segment / self.time_step)
        enthalpy = Conserved(
            series="effective_energy",
            claim="the energy less the work of the pressure does not drift, in kT per degree of freedom per tau",
            tolerance=leak / self.duration,
            tolerance_from="a leak that would melt a hundredth of the atoms over the measured time",
        )
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays what it was, in thermal momenta of one particle",
            tolerance=10 * math.sqrt(steps) * 2.3e-16 * math.sqrt(system.atoms),
            tolerance_from=f"ten times the round-off of {steps} random steps of {system.atoms} additions in double precision",
            drift=False,
        )
        return (enthalpy, momentum)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A short run in a fixed box from where the realisation ended, its time step multiplied by `factor`."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, LennardJonesCoexistence)
        step = self.time_step * factor
        stretch = self.stretch(system, time=2.0, time_step=step, sample_every=step, frame_every=2.0)
        return self._task("conserve", system, stretch, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: LennardJonesCoexistence, stretch: Stretch, seed: int, repeat: int, inputs: dict[str, str]
    ) -> Task:
        atoms = system.atoms / 2 if stage in ("crystal", "liquid") else system.atoms
        pairs = 0.5 * atoms * 4 / 3 * math.pi * system.cutoff**3
        return self.task(stage, system, stretch, seed, repeat, stretch.time / stretch.time_step * pairs * PAIR_SECONDS, inputs)
