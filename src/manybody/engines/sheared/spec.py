"""Mixtures of Lennard-Jones particles and their dynamics under shear: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import NumberDensity, Temperature, Time

Table = tuple[tuple[float, ...], ...]
ShearThermostat = Literal["isokinetic", "none"]

TWIN_TIME = 4.0  # of the runs that show the order in the time step
UNACCOUNTED = 0.01  # of kT, a degree of freedom: what may go astray in UNACCOUNTED_TIME
UNACCOUNTED_TIME = 100.0


class LennardJonesMixture(SystemSpec):
    """N particles of mass 1 and several species in a periodic cube, 4 eps_ab ((sigma_ab/r)^12 - (sigma_ab/r)^6) up to a cutoff.

    The defaults are the liquid of W. Kob and H. C. Andersen, Phys. Rev. E 51, 4626 (1995).
    """

    summary: ClassVar[str] = "particles of several species in a periodic box; by default the Kob-Andersen liquid"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "half turn about z", "reflection in z")
    conserved: ClassVar[tuple[str, ...]] = ("energy", "momentum")

    name: Literal["lennard-jones-mixture"] = "lennard-jones-mixture"
    temperature: Temperature = Field(gt=0, examples=[1.0], description="temperature")
    density: NumberDensity = Field(1.2, gt=0, le=4.0, description="particles per volume")
    atoms: int = Field(500, ge=32, le=10_000_000, description="number of particles of all species")
    fractions: tuple[float, ...] = Field((0.8, 0.2), description="share of each species; they add up to 1")
    mixing: Literal["table", "lorentz-berthelot", "geometric"] = Field(
        "table", description="`table`: sigma and epsilon are given for pairs of species; else the rule that makes them pairs'"
    )
    sigma: Table = Field(((1.0, 0.8), (0.8, 0.88)), description="diameters, a row a species; one row with a mixing rule")
    epsilon: Table = Field(((1.0, 1.5), (1.5, 0.5)), description="depths, a row a species; one row with a mixing rule")
    cutoff: float = Field(2.5, gt=1.0, description="pairs of species further apart than this many of their sigma do not interact")
    treatment: Literal["shifted", "force-shifted", "switched"] = Field(
        "shifted", description="how the potential ends: `shifted` to zero there, `force-shifted` with its slope, or `switched`"
    )
    switch: float = Field(2.0, gt=0, description="where `switched` begins, in sigma of the pair")

    @property
    def box(self) -> float:
        """Edge of the periodic cube."""
        return math.cbrt(self.atoms / self.density)

    @property
    def counts(self) -> tuple[int, ...]:
        """Atoms of each species: fractions rounded so that the total is right."""
        whole = [math.floor(share * self.atoms + 1e-9) for share in self.fractions]
        rest = [share * self.atoms - count for share, count in zip(self.fractions, whole, strict=True)]
        order = sorted(range(len(whole)), key=lambda index: -rest[index])
        for index in order[: self.atoms - sum(whole)]:
            whole[index] += 1
        return tuple(whole)

    @property
    def largest_sigma(self) -> float:
        """The largest diameter of a pair; no mixing rule gives one larger than that of two alike."""
        return max(max(row) for row in self.sigma)

    @model_validator(mode="after")
    def _species_agree(self) -> LennardJonesMixture:
        count = len(self.fractions)
        if not count or min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-9:
            refuse("fractions", "shares above 0 that add up to 1", f"{list(self.fractions)}", "Give one for each species.")
        rows = count if self.mixing == "table" else 1
        for field in ("sigma", "epsilon"):
            table: Table = getattr(self, field)
            if len(table) != rows or any(len(row) != count for row in table):
                expected = f"{rows} row(s) of {count} numbers, for {count} species with mixing `{self.mixing}`"
                refuse(field, expected, f"{[list(row) for row in table]}", "Give as many as there are fractions.")
            if min(min(row) for row in table) <= 0:
                refuse(field, "numbers above 0", f"{[list(row) for row in table]}", "Mend the table.")
            if rows > 1 and any(table[a][b] != table[b][a] for a in range(count) for b in range(a)):
                refuse(field, "the same for a with b as for b with a", f"{[list(row) for row in table]}", "Make it symmetric.")
        if min(self.counts) < 1:
            refuse("atoms", f"at least one atom of each of {count} species", f"{list(self.counts)}", "Take more atoms.")
        return self

    @model_validator(mode="after")
    def _cutoff_fits(self) -> LennardJonesMixture:
        longest = self.cutoff * self.largest_sigma
        if longest > self.box / 2:
            atoms = math.ceil((2 * longest) ** 3 * self.density)
            remedy = f"Lower the cutoff, or take at least {atoms} atoms at this density."
            refuse("cutoff", f"at most half the box, {self.box / 2:.4g}, over the largest sigma", f"{self.cutoff:g}", remedy)
        if self.treatment == "switched" and self.switch >= self.cutoff:
            refuse("switch", f"less than the cutoff, {self.cutoff:g}", f"{self.switch:g}", "Begin it further in.")
        return self


class ShearedLeg(Sampled):
    """One stretch of sheared dynamics: what a node needs to know to compute it."""

    thermostat: ShearThermostat
    shear_rate: float
    melting: float
    melting_temperature: float


class ShearedDynamics(MethodSpec):
    """The SLLOD equations in a sheared periodic cell, the kinetic energy held fixed: a symmetric splitting of order 2.

    A realisation is a chain of tasks: melt a lattice hot and shear it at its temperature until it flows steadily, then
    segments that are measured. What lasts until a strain is reached lasts longer the slower the shear.
    """

    summary: ClassVar[str] = "SLLOD equations of homogeneous shear, isokinetic; equilibrium dynamics at shear_rate 0"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("lennard-jones-mixture",)
    stages: ClassVar[Mapping[str, str]] = {
        "settle": "manybody.engines.sheared.stages:settle",
        "produce": "manybody.engines.sheared.stages:produce",
        "conserve": "manybody.engines.sheared.stages:conserve",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="the energy less work and heat fluctuates with the square of the time step",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "lennard-jones-mixture", "temperature": 1.0},
        {"settling": 4.0, "shear_rate": 0.1},
    )

    name: Literal["sheared-dynamics"] = "sheared-dynamics"
    shear_rate: float = Field(0.0, ge=0, le=10.0, description="gradient of the flow along x over y; 0 is equilibrium")
    thermostat: ShearThermostat = Field("isokinetic", description="`isokinetic`: the kinetic energy is held fixed; or `none`")
    time_step: Time = Field(0.005, gt=0, le=0.02, description="time step; above 0.02 the repulsion is not resolved")
    melting: Time = Field(20.0, gt=0, description="simulated time at the melting temperature, at rest")
    melting_temperature: Temperature = Field(3.0, gt=0, description="at which the starting lattice is melted")
    settling: Time = Field(40.0, gt=0, description="least simulated time at the temperature and the shear rate, not measured")
    settling_strain: float = Field(0.0, ge=0, description="strain that is reached at least before measuring")
    duration: Time = Field(400.0, gt=0, description="least simulated time that is measured, each repeat")
    strain: float = Field(0.0, ge=0, description="strain that is measured at least, each repeat")
    segment: Time = Field(100.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.05, gt=0, description="simulated time between samples of energy and stress")
    frame_every: Time = Field(20.0, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> ShearedDynamics:
        refuse_unless_times_nest(self)
        if self.thermostat == "none" and self.shear_rate > 0:
            came = f"`none` at shear_rate {self.shear_rate:g}"
            refuse("thermostat", "`isokinetic` where there is shear, which heats", came, "Take `isokinetic`, or rest.")
        if self.melting_temperature * self.time_step**2 > 0.01:
            least = math.floor(0.01 / self.time_step**2)
            refuse("melting_temperature", f"at most {least} with this time_step", f"{self.melting_temperature:g}", "Lower it.")
        return self

    def suits(self, system: SystemSpec) -> None:
        """Refuse a strain in a time step at which the flow would outrun the list of neighbours."""
        if self.shear_rate * self.time_step > 0.05:
            most = 0.05 / self.time_step
            refuse("method", f"a shear_rate of at most {most:.3g} with this time_step", f"{self.shear_rate:g}", "Lower either.")

    def measured_time(self) -> float:
        """Simulated time that is measured, whole segments."""
        wanted = max(self.duration, self.strain / self.shear_rate if self.shear_rate else 0.0)
        return self.segment * segments(wanted, self.segment)

    def settling_time(self) -> float:
        """Simulated time at the shear rate before that, whole samples."""
        wanted = max(self.settling, self.settling_strain / self.shear_rate if self.shear_rate else 0.0)
        return self.sample_every * math.ceil(wanted / self.sample_every - 1e-9)

    def extended(self, scale: float) -> MethodSpec:
        """The same method with all that is measured multiplied by `scale`."""
        if scale == 1.0:
            return self
        longer = {"duration": self.duration * scale, "strain": self.strain * scale}
        return type(self).model_validate(self.document() | longer)

    def leg(self, **changes: Any) -> ShearedLeg:
        """A leg with this method's settings, changed where said; `time` always is."""
        return ShearedLeg.of(self, **changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Settling, then as many segments as the measured time takes."""
        assert isinstance(system, LennardJonesMixture)
        start = self.leg(thermostat="isokinetic", time=self.settling_time())  # a lattice has to be melted at T first
        settled, count = self._task("settle", system, start, seed, repeat), round(self.measured_time() / self.segment)
        leg = self.leg(time=self.segment)
        return chain(settled, count, lambda state: self._task("produce", system, leg, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The energy less work and heat, the momentum relative to the flow, and the kinetic energy where it is held."""
        assert isinstance(system, LennardJonesMixture)
        steps = self.leg(time=self.segment).stride * self.leg(time=self.segment).samples
        energy = Conserved(
            series="balance",
            claim="the energy less the work of the shear and the heat does not drift, in kT per degree of freedom per tau",
            tolerance=UNACCOUNTED / UNACCOUNTED_TIME,
            tolerance_from=f"{UNACCOUNTED:g} kT a degree of freedom may go astray in {UNACCOUNTED_TIME:g} tau",
        )
        momentum = Conserved(
            series="momentum",
            claim="the total momentum relative to the flow stays what it was, in thermal momenta of one particle",
            tolerance=10 * math.sqrt(steps) * 2.3e-16 * math.sqrt(system.atoms) * max(1.0, 1 / math.sqrt(system.temperature)),
            tolerance_from=f"ten times the round-off of {steps} random steps of {system.atoms} additions in double precision",
            drift=False,
        )
        if self.thermostat == "none":
            return (energy, momentum)
        kinetic = Conserved(
            series="kinetic_temperature",
            claim="the kinetic temperature stays what is asked for, over it",
            tolerance=10 * steps * 2.3e-16,
            tolerance_from=f"round-off of {steps} steps, five rescalings each, all to one side",
            drift=False,
        )
        return (energy, momentum, kinetic)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A short run from where the realisation ended, its time step multiplied by `factor`."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, LennardJonesMixture)
        step = self.time_step * factor
        leg = self.leg(time_step=step, time=TWIN_TIME, sample_every=2 * step, frame_every=TWIN_TIME)
        return self._task("conserve", system, leg, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: LennardJonesMixture, leg: ShearedLeg, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        steps = leg.stride * leg.samples + (round(leg.melting / leg.time_step) if stage == "settle" else 0)
        pairs = 0.5 * system.atoms * 4 / 3 * math.pi * (system.cutoff * system.largest_sigma) ** 3 * system.density
        # core-seconds a pair and step, measured on a 2020s core with AVX-512
        return self.task(stage, system, leg, seed, repeat, steps * (pairs * 7e-9 + 2e-6), inputs)
