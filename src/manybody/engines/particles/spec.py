"""Lennard-Jones particles and their molecular dynamics: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import PRESSURE, Time
from manybody.engines.particles.fluids import PairFluid, SimpleFluid
from manybody.engines.particles.known_answers import energy_tail, pair_energy, pressure_tail
from manybody.engines.particles.pair_choices import TablePotential

HeatBath = Literal["bussi", "langevin", "nose-hoover", "none"]
Barostat = Literal["monte-carlo", "martyna-tobias-klein"]
BoxCoupling = Literal["isotropic", "anisotropic"]
Start = Literal["liquid", "crystal"]
Precision = Literal["double", "mixed"]
Pressure = Annotated[float, PRESSURE]

ROOM = 0.95  # of half the box, the longest cutoff at constant pressure: the box must be able to shrink
MELTING_HEAT = 1.0  # epsilon above the temperature asked for
CELL_ATOMS = 4  # of a face-centred cubic lattice


class LennardJonesLiquid(PairFluid):
    """N particles of mass 1 in a periodic cube that interact by 4 (r^-12 - r^-6) up to a cutoff."""

    summary: ClassVar[str] = "particles in a periodic box, 4 (r^-12 - r^-6) up to a cutoff, with tail corrections"

    name: Literal["lennard-jones-liquid"] = "lennard-jones-liquid"
    tail_correction: bool = Field(True, description="add the analytic contribution of pairs beyond the cutoff, g(r) = 1")

    @property
    def melting_temperature(self) -> float:
        """Hot enough to melt the lattice within a few tau at liquid densities."""
        return self.temperature + MELTING_HEAT

    @property
    def edge_energy(self) -> float:
        """u(cutoff)."""
        return pair_energy(self.cutoff)

    def energy_tail(self, density: float) -> float:
        """8/3 pi rho (1/3 r_c^-9 - r_c^-3), where it is asked for."""
        return density * energy_tail(1.0, self.cutoff) if self.tail_correction else 0.0

    def pressure_tail(self, density: float) -> float:
        """16/3 pi rho^2 (2/3 r_c^-9 - r_c^-3), where it is asked for."""
        return density**2 * pressure_tail(1.0, self.cutoff) if self.tail_correction else 0.0


FLUIDS: dict[str, type[PairFluid]] = {"lennard-jones-liquid": LennardJonesLiquid, "simple-fluid": SimpleFluid}


def fluid_of(document: Mapping[str, Any]) -> PairFluid:
    """The fluid that a task's document says."""
    return FLUIDS[document["name"]].model_validate(document)


OFFSET = 5e-5  # of the temperature: a tenth of what a long study resolves


def drift_tolerance(thermostat_time: float) -> float:
    """The largest drift of the effective energy, kT per degree of freedom and tau.

    A drift heats the particles until the thermostat carries it off: the offset of T is about drift x thermostat_time.
    """
    return OFFSET / thermostat_time


class ParticleLeg(Sampled):
    """One stretch of dynamics of particles; times in tau. What is not made use of is left out of its document.

    At constant pressure where `pressure` is given. Barostat and chains act after each `exchange_every`.
    """

    thermostat: HeatBath
    thermostat_time: float
    pressure: Pressure | None = None
    barostat: Barostat = "monte-carlo"
    coupling: BoxCoupling = "isotropic"
    barostat_time: float = 1.0
    exchange_every: float = 0.04
    start: Start = "liquid"
    precision: Precision = "double"

    @property
    def exchange_stride(self) -> int:
        """Time steps between actions of the barostat and of chains."""
        return round(self.exchange_every / self.time_step)

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(handler(self))


def without_unused(document: dict[str, Any]) -> dict[str, Any]:
    """A document without settings that are not made use of: studies from before there were such stay the same."""
    unused = set() if document["start"] == "crystal" else {"start"}
    unused |= {"precision"} if document["precision"] == "double" else set()
    if document["pressure"] is None:
        unused |= {"pressure", "barostat", "coupling"}
    if document["pressure"] is None or document["barostat"] != "martyna-tobias-klein":
        unused |= {"barostat_time"}
    if document["pressure"] is None and document["thermostat"] != "nose-hoover":
        unused |= {"exchange_every"}
    return {name: value for name, value in document.items() if name not in unused}


class MolecularDynamics(MethodSpec):
    """Newton's equations by a symmetric splitting, with a thermostat at mid-step or chains outside, and with a barostat.

    A realisation is a chain of tasks: equilibrate from a lattice, then segments, each starting from the state the
    one before ended in. So every segment's end is a checkpoint, and a longer study reuses a shorter one's work.
    With a `pressure`, the system's density is only what it begins with; equilibration is always by trials of the box.
    """

    summary: ClassVar[str] = (
        "velocity Verlet (BAOAB splitting); NVE; NVT by velocity rescaling, Langevin or Nose-Hoover chains; "
        "NPT and NPH by trials of the box; NPT by the piston of Martyna, Tobias and Klein"
    )
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("lennard-jones-liquid", "simple-fluid")
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
        claim="without random numbers the conserved energy fluctuates with the square of the time step (velocity Verlet)",
    )

    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        {"equilibration": 4.0},
    )

    name: Literal["molecular-dynamics"] = "molecular-dynamics"
    thermostat: HeatBath = Field(
        "bussi", description="`bussi` (stochastic velocity rescaling), `langevin`, `nose-hoover` (chains of three), or `none`"
    )
    thermostat_time: Time = Field(0.5, gt=0, description="relaxation time of the thermostat")
    pressure: Pressure | None = Field(None, description="keep this pressure instead of the volume; leave it out for none")
    barostat: Barostat = Field(
        "monte-carlo", description="`monte-carlo` (trials of the box), or `martyna-tobias-klein` (a piston with inertia)"
    )
    coupling: BoxCoupling = Field("isotropic", description="`isotropic`, or `anisotropic`: each edge of a crystal for itself")
    barostat_time: Time = Field(1.0, gt=0, description="relaxation time of the piston")
    exchange_every: Time = Field(0.04, gt=0, description="simulated time between actions of the barostat, or of chains")
    start: Start = Field("liquid", description="`liquid`: the lattice is melted first; `crystal`: it is kept")
    precision: Precision = Field("double", description="`mixed` computes pair forces in single precision, all else in double")
    time_step: Time = Field(0.004, gt=0, le=0.02, description="time step; above 0.02 the repulsion is not resolved")
    equilibration: Time = Field(40.0, gt=0, description="simulated time from the lattice to the liquid, not measured")
    duration: Time = Field(800.0, gt=0, description="simulated time that is measured, each repeat")
    segment: Time = Field(200.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.08, gt=0, description="simulated time between samples of energy and pressure")
    frame_every: Time = Field(2.0, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> MolecularDynamics:
        refuse_unless_times_nest(self)
        if self.pressure is not None or self.thermostat == "nose-hoover":
            refuse_unless_multiple(self, "exchange_every", "time_step")
            refuse_unless_multiple(self, "sample_every", "exchange_every")
        return self

    @model_validator(mode="after")
    def _ensemble_is_possible(self) -> MolecularDynamics:
        fields = type(self).model_fields
        idle = [name for name in ("barostat", "coupling", "barostat_time") if getattr(self, name) != fields[name].default]
        if self.pressure is None and idle:
            refuse("pressure", f"a pressure for `{idle[0]}`", "none", f"Give `pressure`, or leave `{idle[0]}` out.")
        if self.pressure is None:
            return self
        chains = self.thermostat == "nose-hoover"
        if self.barostat == "martyna-tobias-klein" and not chains:
            remedy = "Take it, or `barostat: monte-carlo`."
            refuse("thermostat", "`nose-hoover` with martyna-tobias-klein", self.thermostat, remedy)
        if self.barostat == "monte-carlo" and chains:
            remedy = "Take `bussi` or `langevin`, or `barostat: martyna-tobias-klein`."
            refuse("thermostat", "a thermostat other than nose-hoover with monte-carlo", self.thermostat, remedy)
        if self.coupling == "anisotropic" and self.start == "liquid":
            remedy = "Take `isotropic`, or `start: crystal`."
            refuse("coupling", "`isotropic` for a liquid, which does not keep the shape of a box", self.coupling, remedy)
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(handler(self))

    def suits(self, system: SystemSpec) -> None:
        """A box under pressure needs room to shrink; a crystal needs every site of its lattice filled."""
        assert isinstance(system, PairFluid)
        if isinstance(system, SimpleFluid) and isinstance(system.potential, TablePotential):
            self._suits_a_table()
        most = ROOM * system.box / 2
        if self.pressure is not None and system.cutoff > most:
            atoms = math.ceil((2 * system.cutoff / ROOM) ** 3 * system.density)
            remedy = f"Lower the cutoff, or take at least {atoms} atoms at this density."
            refuse("cutoff", f"at most {ROOM:g} of half the box at constant pressure, {most:.4g}", f"{system.cutoff:g}", remedy)
        cells = math.cbrt(system.atoms / CELL_ATOMS)
        if self.start == "crystal" and abs(cells - round(cells)) > 1e-9:
            near = CELL_ATOMS * round(cells) ** 3
            refuse("atoms", "4 n^3 for a crystal, face-centred cubic", f"{system.atoms}", f"Take {near}.")

    def _suits_a_table(self) -> None:
        """Neither single precision nor the virial by direction is made from a table."""
        if self.precision == "mixed":
            refuse("precision", "`double` for a table", "mixed", "Give the potential as a formula, or leave `precision` out.")
        if self.coupling == "anisotropic" and self.barostat == "martyna-tobias-klein":
            remedy = "Give the potential as a formula, or take `barostat: monte-carlo`."
            refuse("coupling", "`isotropic` for a table with pistons", "anisotropic", remedy)

    def leg(self, **changes: Any) -> ParticleLeg:
        """A leg with this method's settings, changed where said; `time` always is."""
        return ParticleLeg.of(self, **changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, PairFluid)
        # A lattice has to be brought to T and P first, by what relaxes without swinging.
        heat_bath = "langevin" if self.thermostat == "langevin" else "bussi"
        first = self.leg(thermostat=heat_bath, barostat="monte-carlo", time=self.equilibration)
        start = self._task("equilibrate", system, first, seed, repeat)
        leg, count = self.leg(time=self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, leg, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The effective energy (less heat and work taken in, or with baths and piston), and momentum where no noise breaks it."""
        assert isinstance(system, PairFluid)
        energy = Conserved(
            series="effective_energy",
            claim="the energy less the heat from the thermostat does not drift, in kT per degree of freedom per tau",
            tolerance=drift_tolerance(self.thermostat_time),
            tolerance_from=f"a drift that would offset the temperature by {OFFSET:g} of itself, a tenth of what is resolved",
        )
        if self.thermostat == "langevin":
            return (energy,)
        # Round-off of adding the force: N steps of eps relative to a thermal momentum, in random directions. In single precision
        # it is the forces' own: each changes a thermal momentum by a tenth in a step, and is off by some ten units of round-off.
        steps, single = self.leg(time=self.segment).steps, self.precision == "mixed"
        bound = 10 * math.sqrt(steps) * (1.2e-7 if single else 2.3e-16) * math.sqrt(system.atoms)
        what = "forces in single" if single else "additions in double"
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays what it was, in thermal momenta of one particle",
            tolerance=bound,
            tolerance_from=f"ten times the round-off of {steps} random steps of {system.atoms} {what} precision",
            drift=False,
        )
        return (energy, momentum)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A run from where the realisation ended, its time step multiplied by `factor`.

        Without a thermostat in a fixed box, or with chains and piston where there are such: they conserve an energy, too.
        """
        last = realisation.tasks[-1]
        point = realisation.point
        step = self.time_step * factor
        leg = self.leg(thermostat="none", pressure=None, time_step=step, time=4.0, sample_every=step, frame_every=4.0)
        if self.thermostat == "nose-hoover":
            every = self.exchange_every * factor
            time = 16.0  # fewer samples than above, one a cycle: four times as long
            leg = self.leg(time_step=step, exchange_every=every, time=time, sample_every=every, frame_every=time)
        assert isinstance(point.system, PairFluid)
        return self._task("conserve", point.system, leg, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self,
        stage: str,
        system: PairFluid,
        leg: ParticleLeg,
        seed: int,
        repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:
        pairs = 0.5 * system.atoms * 4 / 3 * math.pi * system.cutoff**3 * system.density
        # core-seconds a pair and step, measured on a 2020s core with AVX-512
        return self.task(stage, system, leg, seed, repeat, leg.steps * pairs * 7e-9, inputs)
