"""Lennard-Jones liquid and molecular dynamics: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Leg, Thermostat, chain, refuse_unless_times_nest, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import Length, NumberDensity, Temperature, Time


class LennardJonesLiquid(SystemSpec):
    """N particles of mass 1 in a periodic cube that interact by 4 (r^-12 - r^-6) up to a cutoff."""

    summary: ClassVar[str] = "particles in a periodic box, 4 (r^-12 - r^-6) up to a cutoff, with tail corrections"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "cubic rotation")
    conserved: ClassVar[tuple[str, ...]] = ("energy", "momentum")

    name: Literal["lennard-jones-liquid"] = "lennard-jones-liquid"
    temperature: Temperature = Field(gt=0, examples=[0.85], description="temperature")
    density: NumberDensity = Field(gt=0, le=2.0, examples=[0.776], description="particles per volume")
    atoms: int = Field(500, ge=32, le=10_000_000, description="number of particles")
    cutoff: Length = Field(3.0, gt=1.0, description="pairs further apart do not interact; must exceed sigma and fit half the box")
    tail_correction: bool = Field(True, description="add the analytic contribution of pairs beyond the cutoff, g(r) = 1")

    @property
    def box(self) -> float:
        """Edge of the periodic cube, in sigma."""
        return math.cbrt(self.atoms / self.density)

    @model_validator(mode="after")
    def _cutoff_fits(self) -> LennardJonesLiquid:
        if self.cutoff > self.box / 2:
            atoms = math.ceil((2 * self.cutoff) ** 3 * self.density)
            refuse(
                "cutoff",
                f"at most half the box, {self.box / 2:.4g}",
                f"{self.cutoff:g}",
                f"Lower the cutoff, or take at least {atoms} atoms at this density.",
            )
        return self


class MolecularDynamics(MethodSpec):
    """Newton's equations by a symmetric splitting, with a thermostat at mid-step.

    A realisation is a chain of tasks: equilibrate from a lattice, then segments, each starting from the state the
    one before ended in. So every segment's end is a checkpoint, and a longer study reuses a shorter one's work.
    """

    summary: ClassVar[str] = "velocity Verlet (BAOAB splitting); NVE, or NVT by velocity rescaling or Langevin"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("lennard-jones-liquid",)
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.particles.stages:equilibrate",
        "produce": "manybody.engines.particles.stages:produce",
        "conserve": "manybody.engines.particles.stages:conserve",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="without a thermostat the energy fluctuates with the square of the time step (velocity Verlet)",
    )

    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        {"equilibration": 4.0},
    )

    name: Literal["molecular-dynamics"] = "molecular-dynamics"
    thermostat: Thermostat = Field("bussi", description="`bussi` (stochastic velocity rescaling), `langevin`, or `none` (NVE)")
    thermostat_time: Time = Field(0.5, gt=0, description="relaxation time of the thermostat")
    time_step: Time = Field(0.004, gt=0, le=0.02, description="time step; above 0.02 the repulsion is not resolved")
    equilibration: Time = Field(40.0, gt=0, description="simulated time from the lattice to the liquid, not measured")
    duration: Time = Field(800.0, gt=0, description="simulated time that is measured, each repeat")
    segment: Time = Field(200.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.08, gt=0, description="simulated time between samples of energy and pressure")
    frame_every: Time = Field(2.0, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> MolecularDynamics:
        refuse_unless_times_nest(self)
        return self

    def leg(self, **changes: Any) -> Leg:
        """A leg with this method's settings, changed where said."""
        return Leg.of(self, **changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, LennardJonesLiquid)
        heat_bath = self.thermostat if self.thermostat != "none" else "bussi"  # a lattice has to be melted at T first
        start = self._task("equilibrate", system, self.leg(thermostat=heat_bath, time=self.equilibration), seed, repeat)
        leg, count = self.leg(time=self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, leg, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The effective energy (energy less heat taken from the thermostat), and momentum where no noise breaks it."""
        assert isinstance(system, LennardJonesLiquid)
        # A drift heats the liquid until the thermostat carries it off: the offset of T is about drift x thermostat_time.
        # It must stay ten times below what a long study resolves in T, 5e-4.
        offset = 5e-5
        energy = Conserved(
            series="effective_energy",
            claim="the energy less the heat from the thermostat does not drift, in kT per degree of freedom per tau",
            tolerance=offset / self.thermostat_time,
            tolerance_from=f"a drift that would offset the temperature by {offset:g} of itself, a tenth of what is resolved",
        )
        if self.thermostat == "langevin":
            return (energy,)
        # Round-off of adding the force: N steps of eps relative to a thermal momentum, in random directions.
        steps = self.leg(time=self.segment).steps
        bound = 10 * math.sqrt(steps) * 2.3e-16 * math.sqrt(system.atoms)
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays what it was, in thermal momenta of one particle",
            tolerance=bound,
            tolerance_from=f"ten times the round-off of {steps} random steps of {system.atoms} additions in double precision",
            drift=False,
        )
        return (energy, momentum)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A run without a thermostat from where the realisation ended, its time step multiplied by `factor`."""
        last = realisation.tasks[-1]
        point = realisation.point
        step = self.time_step * factor
        leg = self.leg(thermostat="none", time_step=step, time=4.0, sample_every=step, frame_every=4.0)
        assert isinstance(point.system, LennardJonesLiquid)
        return self._task("conserve", point.system, leg, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: LennardJonesLiquid, leg: Leg, seed: int, repeat: int, inputs: dict[str, str] | None = None
    ) -> Task:
        pairs = 0.5 * system.atoms * 4 / 3 * math.pi * system.cutoff**3 * system.density
        return Task(
            method=self.name,
            stage=stage,
            version=self.version,
            system=system.document(),
            parameters=leg.document(),
            inputs=inputs or {},
            seed=seed,
            repeat=repeat,
            cost=leg.steps * pairs * 7e-9,  # core-seconds a pair and step, measured on a 2020s core with AVX-512
        )
