"""Driven electrolyte and its Brownian dynamics: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.engines.electrolyte.known_answers import LinearTheory

WIDEST_CLOUD = 8.0  # clouds along an edge at least; wider ones would see their own images
TWIN_STEPS = 16  # time steps of a convergence twin: a Debye time or so


class DrivenElectrolyte(SystemSpec):
    """As many ions of charge +1 as of -1 in a periodic cube and a constant field along x; Gaussian clouds of charge.

    Lengths in Debye lengths, energies in kT, times in (Debye length)^2 / D. The Bjerrum length is then `coupling`, the
    density of ions 1 / (4 pi coupling), and linear theory exact as `coupling` goes to 0. Mobility D / kT (Einstein).
    """

    summary: ClassVar[str] = "ions driven by an electric field: Gaussian clouds of charge in a periodic cube"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "turn about the field", "charge conjugation")
    conserved: ClassVar[tuple[str, ...]] = ("centre",)

    name: Literal["driven-electrolyte"] = "driven-electrolyte"
    ions: int = Field(652, ge=2, le=1_000_000, description="number of ions, half of them positive")
    coupling: float = Field(0.5, gt=0, le=5, description="Bjerrum length over Debye length")
    field: float = Field(1.0, ge=0, le=20, description="field along x, in kT a unit charge and Debye length")
    width: float = Field(0.7, gt=0, le=4, description="width a of a cloud: two charges have the energy erf(r / 2a) l_B / r")
    repulsion: float = Field(0.0, ge=0, le=20, description="mean energy of an ion in the repulsion of all others, kT; 0 for none")

    @property
    def density(self) -> float:
        """Ions a cubic Debye length."""
        return 1 / (4 * math.pi * self.coupling)

    @property
    def edge(self) -> float:
        """Edge of the periodic cube."""
        return math.cbrt(self.ions / self.density)

    @property
    def theory(self) -> LinearTheory:
        """Its linear theory."""
        return LinearTheory(self.field, self.width, self.repulsion)

    @model_validator(mode="after")
    def _is_neutral_and_large(self) -> DrivenElectrolyte:
        if self.ions % 2:
            refuse("ions", "an even number, half of each charge", f"{self.ions}", f"Take {self.ions + 1}.")
        if self.edge < WIDEST_CLOUD * self.width:
            least = 2 * math.ceil((WIDEST_CLOUD * self.width) ** 3 * self.density / 2)
            refuse("ions", f"at least {least}, an edge of {WIDEST_CLOUD:g} widths", f"{self.ions}", "Take more ions.")
        return self


class Stretch(Sampled):
    """One stretch of dynamics: what a node needs to know to compute it."""

    modes: int


class IonDynamics(MethodSpec):
    """Overdamped Langevin equations of ions by Heun's method, forces by a mesh.

    A realisation is a chain of tasks: equilibrate from ions at random, then segments, each from where the one before ended.
    """

    summary: ClassVar[str] = "overdamped Brownian motion of ions in a field, by Heun's method (weak order 2), forces by a mesh"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("driven-electrolyte",)
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.electrolyte.stages:equilibrate",
        "produce": "manybody.engines.electrolyte.stages:produce",
        "converge": "manybody.engines.electrolyte.stages:converge",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="converge",
        parameter="time_step",
        quantity="path_difference",
        order=1,
        claim="two paths on the same noise, one with half the time step, part in proportion to the time step (strong order)",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "driven-electrolyte"},
        {"equilibration": 100.0, "duration": 100.0, "segment": 100.0},
    )

    name: Literal["ion-dynamics"] = "ion-dynamics"
    time_step: float = Field(0.1, gt=0, description="time step; limited by how far ions get in one")
    equilibration: float = Field(30.0, gt=0, description="simulated time from ions at random, not measured")
    duration: float = Field(1000.0, gt=0, description="simulated time that is measured, each repeat")
    segment: float = Field(500.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: float = Field(1.0, gt=0, description="simulated time between samples of the structure")
    frame_every: float = Field(100.0, gt=0, description="simulated time between stored configurations")
    modes: int = Field(6, ge=2, le=32, description="structure is kept up to this many wavelengths along the edge")

    @model_validator(mode="after")
    def _times_nest(self) -> IonDynamics:
        refuse_unless_times_nest(self)
        refuse_unless_multiple(self, "equilibration", "sample_every")
        return self

    def suits(self, system: SystemSpec) -> None:
        """Refuse a time step in which ions leave their cloud or the response overshoots, and modes the mesh has not."""
        assert isinstance(system, DrivenElectrolyte)
        limit, reason = longest_time_step(system)
        if self.time_step > limit:
            refuse("method", f"a time_step of at most {limit:.3g}, {reason}", f"{self.time_step:g}", "Lower `time_step`.")
        most = most_modes(system)
        if self.modes > most:
            refuse("method", f"at most {most} modes, what clouds of this width resolve", f"{self.modes}", "Lower `modes`.")

    def stretch(self, time: float) -> Stretch:
        """A stretch of `time` with this method's settings."""
        return Stretch.of(self, time=time)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, DrivenElectrolyte)
        start = self._task("equilibrate", system, self.stretch(self.equilibration), seed, repeat)
        stretch, count = self.stretch(self.segment), self.segments
        return chain(start, count, lambda state: self._task("produce", system, stretch, seed, repeat, {"state": state}))

    @property
    def segments(self) -> int:
        """Measured tasks of a realisation."""
        return segments(self.duration, self.segment)

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The mean position less the mean displacement by noise: forces between ions, and those of the field, cancel."""
        assert isinstance(system, DrivenElectrolyte)
        stretch, total = self.stretch(self.segment), self.equilibration + self.duration
        steps = stretch.stride * stretch.samples
        far = system.edge + system.field * total + 10 * math.sqrt(2 * total)
        centre = Conserved(
            series="centre",
            claim="the mean position, less the mean displacement by noise, stays what it was, in Debye lengths",
            tolerance=2 * steps * far * 2.0**-53,
            tolerance_from=f"{steps} steps, each rounding a position and the sum of displacements once, all to one side",
            drift=False,
        )
        return (centre,)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """Two paths on the same noise from where the realisation ended: time step times `factor`, and half of that."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, DrivenElectrolyte)
        time, step = TWIN_STEPS * self.time_step, self.time_step * factor
        stretch = Stretch(time_step=step, time=time, sample_every=time, frame_every=time, modes=self.modes)
        return self._task("converge", system, stretch, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: DrivenElectrolyte, stretch: Stretch, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        steps = stretch.stride * stretch.samples
        mesh = (0.9 * system.edge / system.width) ** 3
        fields = 2 if system.repulsion else 1
        per_step = fields * (1e-6 * system.ions + 3e-8 * mesh) + 1e-4  # core-seconds, measured on a 2020s core
        return self.task(stage, system, stretch, seed, repeat, steps * per_step, inputs)


def longest_time_step(system: DrivenElectrolyte) -> tuple[float, str]:
    """The longest time step that resolves fields as narrow as a cloud, and what limits it.

    Forces act at both ends of a step, so it must not carry an ion across them: its diffusion sqrt(2 D dt) and the drift of one
    kind of ions past the other, 2 E dt, stay within a width. Charges relax at the rate 1, densities at most at X g k^2 <= X /
    (e a^2); Heun's method is stable to 2 over the rate, and a quarter of that is allowed.
    """
    rate = max(1.0, system.repulsion / (math.e * system.width**2))
    limits = {
        system.width**2 / 2: "or ions diffuse out of their cloud",
        0.5 / rate: "or the response of the ions overshoots",
    }
    if system.field:
        limits[system.width / (2 * system.field)] = "or the field carries ions past each other"
    limit = min(limits)
    return limit, limits[limit]


def most_modes(system: DrivenElectrolyte) -> int:
    """Wavelengths along the edge up to which the mesh gives the structure factor to 1e-3: k a = 2.

    The mesh resolves k a = 2.4 and more; at k a = 2 the sixth-order splines mix in (2 / 2.8)^12 of the power beyond the mesh.
    """
    return int(system.edge / (math.pi * system.width))
