"""Sampling along torsions with a bias: metadynamics, umbrella sampling, or neither. Typed, torch-free.

Numbers are in nm, kJ/mol and u, so times are in ps; angles are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from manybody.core.dynamics import segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import NamedSpec, Spec, refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import Energy, Time
from manybody.engines.molecules.spec import Molecule

STEP_SECONDS = 2.5e-5  # a step of twenty atoms, on one core of the 2020s
WEIGH_SECONDS = 3e-8  # a sample, pair of windows and block of umbrella sampling, the same: some passes of MBAR
WIDEST_HILL = 0.8  # radians: wider, and a hill does not fit the circle

Torsion = tuple[int, int, int, int]


class Unbiased(NamedSpec):
    """No bias at all."""

    name: Literal["none"] = "none"


class _HillSpec(NamedSpec):
    """How hills of well-tempered metadynamics pile up: exp((cos(s - s_h) - 1) / width^2) in each torsion, ever lower."""

    height: Energy = Field(1.2, gt=0, description="height of the first hill")
    width: float = Field(0.35, gt=0.02, le=WIDEST_HILL, description="width of a hill, radians")
    pace: Time = Field(1.0, gt=0, description="simulated time between hills")
    bias_factor: float = Field(8.0, gt=1, description="gamma: barriers are overcome as at gamma times the temperature")


class Hills(_HillSpec):
    """What a segment of metadynamics needs to know of it."""

    name: Literal["hills"] = "hills"


class Metadynamics(_HillSpec):
    """Well-tempered metadynamics: hills pile up where the molecule has been.

    What is sampled in the first `fill` is not measured: there the bias still grows fast.
    """

    name: Literal["metadynamics"] = "metadynamics"
    fill: Time = Field(500.0, ge=0, description="simulated time in which the bias grows and nothing is measured")

    def __str__(self) -> str:
        return f"metadynamics, bias factor {self.bias_factor:g}"


class Window(NamedSpec):
    """A restraint k (s - c)^2 / 2 in each torsion, its centre brought to where it stays over the time `approach`."""

    name: Literal["window"] = "window"
    centres: tuple[float, ...]
    stiffness: tuple[Energy, ...]
    approach: Time


class Umbrella(NamedSpec):
    """Umbrella sampling: restraints about the points of an even grid over all torsions, each a run of its own.

    Where a restraint is weaker than a ridge is curved, a window has a well on either side of it and stays in the one that it
    was pulled into: it would tell MBAR that the other is empty. The molecule then sits far from the centre, so that windows
    whose restraint holds more than `most_strain` on average are left out; half a kT a torsion is what even ground gives.
    """

    name: Literal["umbrella"] = "umbrella"
    windows: tuple[int, ...] = Field((24, 24), description="restraints along each torsion, at least 3")
    stiffness: tuple[Energy, ...] = Field((300.0, 200.0), description="k of k (s - c)^2 / 2 of each torsion, energy a radian^2")
    approach: Time = Field(10.0, gt=0, description="simulated time on the way to a restraint's centre, and again to settle there")
    most_strain: float = Field(5.0, gt=1, description="mean energy of a restraint above which its window is left out, kT")

    @model_validator(mode="after")
    def _overlap(self) -> Umbrella:
        if min(self.windows) < 3 or min(self.stiffness) <= 0 or len(self.windows) != len(self.stiffness):
            came = f"{list(self.windows)} and {list(self.stiffness)}"
            refuse("windows", "at least 3 windows and a stiffness above 0 for each torsion", came, "Give both for each torsion.")
        return self

    def __str__(self) -> str:
        return f"umbrella sampling, {' x '.join(map(str, self.windows))} windows"

    @property
    def centres(self) -> tuple[tuple[float, ...], ...]:
        """The grid of centres, radians, from -pi on, the last torsion fastest."""
        return tuple(product(*([-math.pi + 2 * math.pi * n / count for n in range(count)] for count in self.windows)))


class BiasedLeg(Spec):
    """One stretch of biased dynamics: what a node needs to know to compute it."""

    torsions: tuple[Torsion, ...]
    bias: Annotated[SerializeAsAny[Unbiased | Hills | Window], Field(discriminator="name")]
    friction_time: float | None
    time_step: float
    time: float
    sample_every: float

    @property
    def stride(self) -> int:
        """Time steps between samples."""
        return max(1, round(self.sample_every / self.time_step))

    @property
    def samples(self) -> int:
        """Samples of the leg."""
        return max(1, round(self.time / self.sample_every))


class Weighing(Spec):
    """How samples become populations of the cells of a grid over the torsions."""

    bias: Annotated[SerializeAsAny[Unbiased | Metadynamics | Umbrella], Field(discriminator="name")]
    torsions: int
    bins: int
    blocks: int


class BiasedDynamics(MethodSpec):
    """Langevin dynamics of a molecule with a bias along one or two torsions, and what its samples weigh without it.

    A realisation: equilibrate; then a chain of segments (none, metadynamics) or one task a window (umbrella); then `weigh`,
    which brings all samples to the unbiased ensemble: as `bins` cells along each torsion, from all of them and with each of
    `blocks` blocks left out in turn.
    """

    summary: ClassVar[str] = "free-energy sampling along torsions: metadynamics, umbrella sampling (MBAR), or unbiased"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("molecule",)
    stages: ClassVar[Mapping[str, str]] = {
        name: f"manybody.engines.molecules.sampling_stages:{name}"
        for name in ("equilibrate", "sample", "window", "weigh", "conserve")
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="without a thermostat the energy fluctuates with the square of the time step (velocity Verlet)",
    )

    name: Literal["biased-dynamics"] = "biased-dynamics"
    torsions: tuple[Torsion, ...] = Field(min_length=1, max_length=2, description="four atoms each, counted from 0")
    bias: Annotated[SerializeAsAny[Unbiased | Metadynamics | Umbrella], Field(discriminator="name")] = Field(
        Unbiased(), description="`none`, `metadynamics` or `umbrella`"
    )
    friction_time: Time = Field(0.2, gt=0, description="relaxation time of velocities by Langevin friction")
    time_step: Time = Field(0.002, gt=0, le=0.004, description="time step")
    equilibration: Time = Field(20.0, gt=0, description="simulated time before anything else, without a bias")
    duration: Time = Field(1000.0, gt=0, description="simulated time that is measured, each repeat; windows share it")
    segment: Time = Field(250.0, gt=0, description="simulated time of one task of a chain")
    sample_every: Time = Field(0.1, gt=0, description="simulated time between samples")
    bins: int = Field(72, ge=6, le=720, description="cells along each torsion in which samples are counted")
    blocks: int = Field(8, ge=2, le=100, description="parts of the samples that are left out in turn, for errors")

    @model_validator(mode="before")
    @classmethod
    def _named_bias(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("bias"), str):
            return given | {"bias": {"name": given["bias"]}}
        return given

    @model_validator(mode="after")
    def _fits(self) -> BiasedDynamics:
        refuse_unless_multiple(self, "sample_every", "time_step")
        refuse_unless_multiple(self, "segment", "sample_every")
        for atoms in self.torsions:
            if len(set(atoms)) < 4 or min(atoms) < 0:
                refuse("torsions", "four different atoms each, counted from 0", f"{list(atoms)}", "Name each atom once.")
        if isinstance(self.bias, Metadynamics) and round(self.bias.pace / self.time_step) < 1:
            refuse("pace", f"at least one time step, {self.time_step:g} ps", f"{self.bias.pace:g} ps", "Take some hundred steps.")
        if isinstance(self.bias, Umbrella) and len(self.bias.windows) != len(self.torsions):
            came = f"{len(self.bias.windows)}"
            refuse(
                "windows", f"one number for each of {len(self.torsions)} torsions", came, "Give as many as there are torsions."
            )
        if self._samples < self.blocks:
            expected = f"at least {self.blocks} samples each run, one for each block"
            refuse("duration", expected, f"{self._samples}", "Measure for longer, or take fewer blocks.")
        return self

    @property
    def windows(self) -> int:
        """Runs that share the duration: the windows of umbrella sampling; else 1."""
        return math.prod(self.bias.windows) if isinstance(self.bias, Umbrella) else 1

    @property
    def _samples(self) -> int:
        return round(self.duration / self.windows / self.sample_every)

    def suits(self, system: SystemSpec) -> None:
        """No terms by formula. Bonds to hydrogen that are not rigid oscillate within 9 fs: they need steps of a fs or less."""
        if isinstance(system, Molecule) and system.terms:
            remedy = "Leave out the `terms`, or take `force-field-dynamics` or `replica-exchange`."
            refuse("method", "a method that knows terms by formula", self.name, remedy)
        if isinstance(system, Molecule) and system.rigid == "none" and self.time_step > 0.00125:
            remedy = "Take `time_step: 1 fs`, or `rigid: h-bonds` in the system."
            refuse("time_step", "at most 1.25 fs where bonds to hydrogen are flexible", f"{1e3 * self.time_step:g} fs", remedy)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, segments or windows, and what they weigh: only that is measured."""
        assert isinstance(system, Molecule)
        start = self._task("equilibrate", system, self._leg(Unbiased(), self.equilibration), seed, repeat)
        if isinstance(self.bias, Umbrella):
            spent: list[Task] = []
            parts = self._windows(self.bias, system, start)
        else:
            spent, parts = self._chain(system, start)
        weighing = Weighing(bias=self.bias, torsions=len(self.torsions), bins=self.bins, blocks=self.blocks)
        weigh = self._task(
            "weigh", system, weighing, seed, repeat, {f"part-{n:05d}": part.digest for n, part in enumerate(parts)}
        ).model_copy(update={"cost": 1.0 + WEIGH_SECONDS * self._samples * self.windows**2 * (self.blocks + 1)})
        return (start, *spent, *parts, weigh), (weigh,)

    def _chain(self, system: Molecule, start: Task) -> tuple[list[Task], list[Task]]:
        """The segments in which a bias grows, and those that are measured."""
        tasks, filling = [start], 0
        bias: Hills | Unbiased = Unbiased()
        if isinstance(self.bias, Metadynamics):
            filling = segments(self.bias.fill, self.segment)
            bias = Hills.model_validate(self.bias.model_dump(include=set(_HillSpec.model_fields) - {"name"}))
        for _ in range(filling + segments(self.duration, self.segment)):
            leg = self._leg(bias, self.segment)
            tasks.append(self._task("sample", system, leg, start.seed, start.repeat, {"state": tasks[-1].digest}))
        return tasks[1 : 1 + filling], tasks[1 + filling :]

    def _windows(self, bias: Umbrella, system: Molecule, start: Task) -> list[Task]:
        """One task a window."""
        time = self._samples * self.sample_every
        legs = [
            self._leg(Window(centres=centres, stiffness=bias.stiffness, approach=bias.approach), time) for centres in bias.centres
        ]
        return [self._task("window", system, leg, start.seed, start.repeat, {"state": start.digest}) for leg in legs]

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The energy with that of the bias, less heat from the bath and the work of hills and moving restraints."""
        # A drift heats the molecule until the bath carries it off: the offset of T is about drift x friction_time / 2.
        offset = 5e-4
        return (
            Conserved(
                series="effective_energy",
                claim="the energy less heat and the work of the bias does not drift, in kT per degree of freedom per ps",
                tolerance=offset / self.friction_time,
                tolerance_from=f"a drift that would offset the temperature by {offset:g} of itself, less than a study resolves",
            ),
        )

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """An unbiased run without a bath from where the realisation began, at half the time step times `factor`.

        At 2 fs the bending of bonds to hydrogen, 0.5 rad a step, still shows the next term of the error.
        """
        first, system, step = realisation.tasks[0], realisation.point.system, 0.5 * self.time_step * factor
        leg = self._leg(Unbiased(), 2000 * self.time_step, friction_time=None, time_step=step, sample_every=step)
        assert isinstance(system, Molecule)
        return self._task("conserve", system, leg, first.seed, realisation.repeat, {"state": first.digest})

    def _leg(self, bias: Unbiased | Hills | Window, time: float, **changes: Any) -> BiasedLeg:
        fields = {name: getattr(self, name) for name in ("torsions", "friction_time", "time_step", "sample_every")}
        return BiasedLeg(**{**fields, "bias": bias, "time": time, **changes})

    def _task(
        self,
        stage: str,
        system: Molecule,
        leg: BiasedLeg | Weighing,
        seed: int,
        repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:
        steps = leg.time / leg.time_step if isinstance(leg, BiasedLeg) else 0.0
        if isinstance(leg, BiasedLeg) and isinstance(leg.bias, Window):
            steps += 2 * leg.bias.approach / leg.time_step
        return self.task(stage, system, leg, seed, repeat, steps * STEP_SECONDS, inputs)
