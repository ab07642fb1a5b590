"""Dissipative particles and their dynamics: typed, torch-free."""

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

LEAST_EDGE = 2.0  # below it two images of a particle would be within the range of another
TWIN_SAMPLES = 200  # of the runs that show the order in the time step: a scatter to 5 %
STIFFEST = 0.5  # time step times the highest frequency of a spring: an eighth of a period


class DissipativeParticles(SystemSpec):
    """N particles of mass 1 and range 1 in a periodic box, which repel each other by a (1 - r) and rub along r.

    Friction is gamma (1 - r)^2 times the relative velocity along r, and noise keeps the temperature. Species a and b repel
    each other by ``repulsion + excess[a][b]``. Of `beads` above 1, so many particles are a chain, by springs F = -C r. The
    defaults are water at the coarse-graining of R. D. Groot and P. B. Warren, J. Chem. Phys. 107, 4423 (1997).
    """

    summary: ClassVar[str] = "soft particles, or chains of them, with friction and noise between each two: DPD"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "reflection", "rest frame")
    conserved: ClassVar[tuple[str, ...]] = ("momentum",)

    name: Literal["dissipative-particles"] = "dissipative-particles"
    temperature: Temperature = Field(1.0, gt=0, examples=[1.0], description="temperature")
    density: NumberDensity = Field(3.0, gt=0, le=20.0, examples=[3.0], description="particles per volume")
    particles: int = Field(1000, ge=8, le=10_000_000, description="number of particles of all species")
    repulsion: float = Field(25.0, ge=0, le=1000.0, description="force between two particles of one species at contact")
    excess: Table = Field((), description="what is added to it for each two species, a row a species; none by default")
    fractions: tuple[float, ...] = Field((1.0,), description="share of each species; they add up to 1")
    friction: float = Field(4.5, gt=0, le=1000.0, description="friction of two particles at contact, over their velocity")
    aspect: float = Field(1.0, ge=1.0, le=100.0, description="length of the box along z over its width")
    beads: int = Field(1, ge=1, le=10_000, description="particles in a chain; 1 for single ones")
    spring: float = Field(4.0, gt=0, le=1e4, description="constant of the springs of a chain, whose resting length is 0")

    @property
    def box(self) -> tuple[float, float, float]:
        """Edges of the periodic box."""
        width = math.cbrt(self.particles / self.density / self.aspect)
        return width, width, self.aspect * width

    @property
    def volume(self) -> float:
        """Volume of the box."""
        return self.particles / self.density

    @property
    def table(self) -> Table:
        """The repulsion of each two species."""
        count = len(self.fractions)
        added = self.excess or ((0.0,) * count,) * count
        return tuple(tuple(self.repulsion + value for value in row) for row in added)

    @property
    def chains(self) -> int:
        """Chains, or single particles."""
        return self.particles // self.beads

    @property
    def counts(self) -> tuple[int, ...]:
        """Particles of each species, whole chains: fractions rounded so that the total is right."""
        whole = [math.floor(share * self.chains + 1e-9) for share in self.fractions]
        rest = [share * self.chains - count for share, count in zip(self.fractions, whole, strict=True)]
        order = sorted(range(len(whole)), key=lambda index: -rest[index])
        for index in order[: self.chains - sum(whole)]:
            whole[index] += 1
        return tuple(count * self.beads for count in whole)

    @model_validator(mode="after")
    def _species_agree(self) -> DissipativeParticles:
        count = len(self.fractions)
        if not count or min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-9:
            refuse("fractions", "shares above 0 that add up to 1", f"{list(self.fractions)}", "Give one for each species.")
        if self.particles % self.beads:
            down = self.particles // self.beads * self.beads
            refuse("particles", f"a multiple of the {self.beads} beads of a chain", f"{self.particles}", f"Take {down}.")
        if min(self.counts) < 1:
            refuse("particles", f"some of each of {count} species", f"{list(self.counts)}", "Take more particles.")
        if self.excess:
            self._refuse_bad_excess(count)
        return self

    def _refuse_bad_excess(self, count: int) -> None:
        came = f"{[list(row) for row in self.excess]}"
        if len(self.excess) != count or any(len(row) != count for row in self.excess):
            refuse("excess", f"{count} row(s) of {count} numbers", came, "Give as many as there are fractions.")
        if any(self.excess[a][b] != self.excess[b][a] for a in range(count) for b in range(a)):
            refuse("excess", "the same for a with b as for b with a", came, "Make it symmetric.")
        if min(min(row) for row in self.table) < 0:
            refuse("excess", f"numbers not below {-self.repulsion:g}, so that nothing attracts", came, "Raise them.")

    @model_validator(mode="after")
    def _range_fits(self) -> DissipativeParticles:
        if min(self.box) < LEAST_EDGE:
            least = math.ceil(LEAST_EDGE**3 * self.aspect * self.density)
            expected = f"at least {least} at this density, for a box {LEAST_EDGE:g} wide"
            refuse("particles", expected, f"{self.particles}", "Take more particles.")
        return self


class DissipativeLeg(Sampled):
    """One stretch of dissipative dynamics: what a node needs to know to compute it."""


class DissipativeDynamics(MethodSpec):
    """Forces by a symmetric splitting of order 2, friction and noise of each pair exactly at mid-step.

    A realisation is a chain of tasks: equilibrate from random positions, then segments that are measured.
    """

    summary: ClassVar[str] = "dissipative particle dynamics: splitting of order 2, friction and noise of pairs exact at any step"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("dissipative-particles",)
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.dissipative.stages:equilibrate",
        "produce": "manybody.engines.dissipative.stages:produce",
        "account": "manybody.engines.dissipative.stages:produce",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="account",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="what the energy less the heat changes by between samples scatters with the square of the time step",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "dissipative-particles"},
        {"equilibration": 20.0},
    )

    name: Literal["dissipative-dynamics"] = "dissipative-dynamics"
    time_step: Time = Field(0.02, gt=0, le=0.1, description="time step; above 0.1 the repulsion is not resolved")
    equilibration: Time = Field(20.0, gt=0, description="simulated time from the start, not measured")
    duration: Time = Field(400.0, gt=0, description="simulated time that is measured, each repeat")
    segment: Time = Field(100.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.2, gt=0, description="simulated time between samples of pressure and temperature")
    frame_every: Time = Field(2.0, gt=0, description="time between stored configurations, over which displacements are taken")

    @model_validator(mode="after")
    def _times_nest(self) -> DissipativeDynamics:
        refuse_unless_times_nest(self)
        return self

    def suits(self, system: SystemSpec) -> None:
        """Refuse a time step in which a spring swings too far, or the repulsion pushes a particle too far."""
        assert isinstance(system, DissipativeParticles)
        frequency = math.sqrt(4 * system.spring) if system.beads > 1 else 0.0
        frequency = max(frequency, math.sqrt(2 * max(max(row) for row in system.table)))
        if self.time_step * frequency > STIFFEST:
            most = STIFFEST / frequency
            came = f"{self.time_step:g}"
            refuse("method", f"a time_step of at most {most:.3g} for these forces", came, "Lower `time_step`.")

    def leg(self, **changes: Any) -> DissipativeLeg:
        """A leg with this method's settings, changed where said; `time` always is."""
        return DissipativeLeg.of(self, **changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, DissipativeParticles)
        start = self._task("equilibrate", system, self.leg(time=self.equilibration), seed, repeat)
        leg, count = self.leg(time=self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, leg, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The momentum: what one particle of a pair gains the other loses, to the last bits."""
        assert isinstance(system, DissipativeParticles)
        leg = self.leg(time=self.segment)
        steps = leg.stride * leg.samples
        pairs = 0.5 * system.particles * (system.density * 4 / 3 * math.pi + 2)
        # A velocity of up to six thermal ones rounds by 2^-53 of itself, at random, for each pair and kick; ten deviations.
        bound = 10 * 6 * 2.0**-53 * math.sqrt(2 * pairs * steps)
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays what it was, in thermal momenta of one particle",
            tolerance=bound,
            tolerance_from=f"ten standard deviations of the round-off of {steps} steps of {pairs:.0f} pairs",
            drift=False,
        )
        return (momentum,)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A short run from where the realisation ended, its time step multiplied by `factor`."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, DissipativeParticles)
        time = TWIN_SAMPLES * self.sample_every
        leg = self.leg(time_step=self.time_step * factor, time=time, frame_every=time)
        return self._task("account", system, leg, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: DissipativeParticles, leg: DissipativeLeg, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        seconds = 2e-7 + 1.5e-7 * system.density  # of a core, a particle and step, measured on a 2020s core with AVX-512
        return self.task(stage, system, leg, seed, repeat, leg.stride * leg.samples * system.particles * seconds, inputs)
