"""Advection and diffusion of a field, and finite volumes in slabs: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.certificate import Finding
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import Spec, refuse
from manybody.core.study import Realisation
from manybody.core.task import Output, Task
from manybody.engines.fields.exchange import exchange_findings
from manybody.engines.fields.known_answers import exact_averages, stability_limit
from manybody.engines.fields.layout import GATHER_S, Layout, rows_read
from manybody.engines.fields.parts import STEP_HALO, Course, Grid, Moment, Precision
from manybody.engines.fields.trials import trials
from manybody.numerics.rounds import EXCHANGE_RATIO, Costs, Prediction, SplitProblem, Trial, choose, predict

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24}  # largest relative error of one rounded operation
CELL_BYTES = {"float64": 8, "float32": 4}

CELLS_A_PERIOD, CELLS_A_WIDTH = 8, 2  # the least that the study's own grid must have: its twin has half of them


class Wave(Spec):
    """amplitude cos(2 pi (cycles_x x + cycles_y y) + phase)."""

    cycles_x: int = Field(ge=-64, le=64, description="periods along x")
    cycles_y: int = Field(ge=-64, le=64, description="periods along y")
    amplitude: float = Field(1.0, description="height")
    phase: float = Field(0.0, description="phase, radians")

    @model_validator(mode="after")
    def _varies(self) -> Wave:
        if self.amplitude == 0 or self.cycles_x == self.cycles_y == 0:
            remedy = "Leave it out; a constant is the system's `background`."
            refuse("amplitude", "a wave that varies", "one that does not", remedy)
        return self


class Gaussian(Spec):
    """amplitude exp(-r^2 / (2 width^2)) about (x, y), with its periodic images."""

    x: float = Field(0.5, ge=0, lt=1, description="centre along x")
    y: float = Field(0.5, ge=0, lt=1, description="centre along y")
    width: float = Field(0.1, ge=0.01, le=0.5, description="standard deviation")
    amplitude: float = Field(1.0, description="height")


class AdvectedField(SystemSpec):
    """A concentration on the periodic unit square that a constant velocity carries and diffusion spreads.

    It starts as a sum of waves and Gaussians, so that the exact solution is known at all times. Lengths are in edges of
    the square.
    """

    summary: ClassVar[str] = "a concentration that is carried and spread, on a periodic square; exact solution known"
    symmetries: ClassVar[tuple[str, ...]] = ("translation by whole cells",)
    conserved: ClassVar[tuple[str, ...]] = ("mean",)

    name: Literal["advected-field"] = "advected-field"
    velocity_x: float = Field(1.0, description="velocity along x, edges a unit of time")
    velocity_y: float = Field(0.0, description="velocity along y, edges a unit of time")
    diffusivity: float = Field(0.0, ge=0, description="diffusivity, squared edges a unit of time")
    background: float = Field(0.0, description="added everywhere")
    waves: tuple[Wave, ...] = Field((), description="waves that the field starts as")
    gaussians: tuple[Gaussian, ...] = Field(
        (), description="Gaussians that the field starts as", examples=[[{"x": 0.5, "y": 0.5, "width": 0.1, "amplitude": 1.0}]]
    )

    @model_validator(mode="after")
    def _something_happens(self) -> AdvectedField:
        if not self.waves and not self.gaussians:
            refuse("waves", "at least one wave or Gaussian", "none", "Add for example `waves: [{cycles_x: 1, cycles_y: 0}]`.")
        if self.velocity_x == self.velocity_y == self.diffusivity == 0:
            refuse("velocity_x", "a velocity or a diffusivity", "neither", "Give one of them: the field does not change.")
        return self


class Exchange(Spec):
    """Neighbours are sent their halos compressed, every value within `bound` of what it was."""

    bound: float = Field(gt=0, description="largest absolute error of a value that is sent")
    when: Literal["auto", "always", "never"] = Field("auto", description="`auto`: where the costs say that it pays")


class FiniteVolume(MethodSpec):
    """Finite volumes of fourth order in space and time, in slabs that advance by rounds, or together as a gang.

    Task (part, round) takes the edges of its neighbours after the round before and advances `steps_per_round` steps.
    Members of a gang exchange edges before every step. At every sample the slabs are gathered; what is gathered does
    not depend on how the grid was split, nor on which of the two ways it was advanced, in one bit.
    """

    summary: ClassVar[str] = "finite volumes of order 4 in space and time, explicit, split into slabs: by rounds or as a gang"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("advected-field",)
    stages: ClassVar[Mapping[str, str]] = {
        "start": "manybody.engines.fields.stages:start",
        "advance": "manybody.engines.fields.stages:advance",
        "gather": "manybody.engines.fields.stages:gather",
        "converge": "manybody.engines.fields.stages:converge",
    }
    gangs: ClassVar[Mapping[str, str]] = {"together": "manybody.engines.fields.stages:together"}
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="converge",
        parameter="spacing",
        quantity="field_error",
        order=4,
        claim="the deviation from the exact solution falls with the fourth power of spacing and time step together",
    )

    name: Literal["finite-volume"] = "finite-volume"
    rows: int = Field(128, ge=16, le=65_536, multiple_of=2, description="cells along x, the direction that is split; even")
    columns: int = Field(128, ge=16, le=1_048_576, multiple_of=2, description="cells along y; even")
    time_step: float = Field(0.005, gt=0, description="time step; limited by velocity, diffusivity and grid")
    duration: float = Field(1.0, gt=0, description="simulated time")
    sample_every: float = Field(0.1, gt=0, description="simulated time between samples of the whole field")
    parts: int = Field(2, ge=1, le=4096, description="slabs that the grid is split into")
    steps_per_round: int | Literal["auto"] = Field("auto", description="time steps a task, or `auto`: chosen from `costs`")
    precision: Precision = Field("float64", description="`float64` or `float32`")
    costs: Costs | None = Field(None, description="what `auto` reckons with; by default what is measured on the network")
    run: Literal["rounds", "gang"] = Field(
        "rounds", description="`rounds`: tasks that run anywhere; `gang`: processes of one machine that exchange every step"
    )
    channel: Literal["gloo", "mpi"] = Field("gloo", description="what links the members of a gang")
    exchange: Exchange | None = Field(None, description="compresses what rounds exchange, with a bound on the error")

    @model_validator(mode="after")
    def _splits(self) -> FiniteVolume:
        ratio = self.sample_every / self.time_step
        if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-6 * ratio:
            whole = max(1, round(ratio)) * self.time_step
            refuse(
                "sample_every",
                f"a whole multiple of time_step = {self.time_step:g}",
                f"{self.sample_every:g}",
                f"Take {whole:g}.",
            )
        if self.samples < 2:
            refuse("duration", f"at least 2 samples, {2 * self.sample_every:g}", f"{self.duration:g}", "Sample more often.")
        most = self._problem(1.0).most_steps(self.parts)
        if most < 1:
            remedy = f"Take at most {self.rows // STEP_HALO} parts."
            refuse(
                "parts", f"slabs of at least {STEP_HALO} rows, one step's halo", f"{self.rows} rows in {self.parts} parts", remedy
            )
        if self.steps_per_round != "auto" and not 1 <= self.steps_per_round <= most:
            remedy = "Halos come from the direct neighbours, and a round ends at a sample: take fewer parts or steps."
            refuse("steps_per_round", f"1 to {most} with {self.parts} parts", f"{self.steps_per_round}", remedy)
        return self

    def suits(self, system: SystemSpec) -> None:
        """Refuse a system that the grid does not resolve, and a time step with which a mode of it would grow."""
        assert isinstance(system, AdvectedField)
        self._resolves(system)
        limit = stability_limit(system, self.rows, self.columns)
        if self.time_step > limit:
            expected = f"a time_step of at most {limit:.4g}, the limit of stability on {self.rows} x {self.columns} cells"
            remedy = "Lower `time_step`, or take fewer cells."
            refuse("method", f"{expected} at this velocity and diffusivity", f"{self.time_step:g}", remedy)

    def _resolves(self, system: AdvectedField) -> None:
        """Refuse waves that would be none on the twice coarser grid of the twin, and Gaussians within a few cells."""
        for axis, cells, cycles in (
            ("rows", self.rows, max((abs(wave.cycles_x) for wave in system.waves), default=0)),
            ("columns", self.columns, max((abs(wave.cycles_y) for wave in system.waves), default=0)),
        ):
            narrowest = min((gaussian.width for gaussian in system.gaussians), default=1.0)
            least = max(CELLS_A_PERIOD * cycles, math.ceil(CELLS_A_WIDTH / narrowest))
            if cells < least:
                what = f"at least {least} {axis}, {CELLS_A_PERIOD} a period of every wave and {CELLS_A_WIDTH} a Gaussian's width"
                refuse("method", what, f"{cells}", f"Take more {axis}, or a smoother field.")

    @property
    def stride(self) -> int:
        """Time steps between samples."""
        return round(self.sample_every / self.time_step)

    @property
    def samples(self) -> int:
        """Samples after the start."""
        return math.ceil(self.duration / self.sample_every - 1e-9)

    @property
    def problem(self) -> SplitProblem:
        """What has to be advanced from sample to sample, for the cost model."""
        return self._problem(EXCHANGE_RATIO if self.bound else 1.0)

    @property
    def split(self) -> Prediction:
        """The split, and what it is expected to cost from sample to sample."""
        return self._split(self.problem)

    @property
    def bound(self) -> float:
        """Largest error of a value that rounds exchange; 0 where it is sent as it is."""
        if self.exchange is None or self.run == "gang" or self.exchange.when == "never":
            return 0.0
        plain, coded = (self._split(self._problem(ratio)).total_s for ratio in (1.0, EXCHANGE_RATIO))
        return self.exchange.bound if self.exchange.when == "always" or coded < plain else 0.0

    def _problem(self, ratio: float) -> SplitProblem:
        return SplitProblem(self.rows, self.columns, self.stride, STEP_HALO, self.cell_bytes, ratio)

    def _split(self, problem: SplitProblem) -> Prediction:
        if self.steps_per_round != "auto":
            return predict(problem, self.reckoned, self.parts, self.steps_per_round)
        chosen = choose(problem, self.reckoned, [self.parts])
        assert chosen is not None, "the slabs have rows for a halo: checked when made"
        return chosen

    @property
    def grid(self) -> Grid:
        """The grid, time step and precision."""
        return Grid(rows=self.rows, columns=self.columns, time_step=self.time_step, precision=self.precision)

    @property
    def cell_bytes(self) -> int:
        """Bytes of a cell's value."""
        return CELL_BYTES[self.precision]

    @property
    def reckoned(self) -> Costs:
        """The costs to reckon with."""
        return self.costs or Costs()

    def course(self, begin: int, samples: int) -> Course:
        """What a gang advances from step `begin` on."""
        together = {"members": self.parts, "channel": self.channel}
        return Course.model_validate(
            self.grid.document() | together | {"begin": begin, "stride": self.stride, "samples": samples}
        )

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Rounds of slabs, or courses of a gang; every sample is gathered, and the last gathering carries all samples."""
        assert isinstance(system, AdvectedField)
        layout = Layout(self, system, seed, repeat)
        if self.run == "gang":
            layout.courses()
        else:
            layout.rounds()
        return tuple(layout.tasks), (layout.tasks[-1],)

    @classmethod
    def reads(cls, task: Task, name: str) -> Mapping[str, slice] | None:
        """Rounds read only edges of their neighbours' slabs (`core.split.ReadsParts`)."""
        return rows_read(task, name)

    def is_open(self) -> bool:
        """Whether rounds, or their compression, are left to be chosen by measured costs (`numerics.rounds.Tunable`)."""
        compresses = self.exchange is not None and self.exchange.when == "auto"
        return self.run == "rounds" and (self.steps_per_round == "auto" or compresses) and self.costs is None

    def trials(self, workers: int, turn: int) -> tuple[Trial, ...]:
        """Rounds of small fields that tell what the network costs; other fields every turn."""
        return trials(self, AdvectedField(waves=(Wave(cycles_x=1, cycles_y=1, phase=float(turn)),)), workers)

    def settled(self, costs: Costs) -> FiniteVolume:
        """This method with the steps of a round chosen by `costs`."""
        known = self.model_copy(update={"costs": costs})
        chosen: dict[str, Any] = {"steps_per_round": known.split.steps_per_round}
        if self.exchange is not None:
            chosen["exchange"] = self.exchange.document() | {"when": "always" if known.bound else "never"}
        return type(self).model_validate(self.document() | chosen)

    def expected_s(self, costs: Costs) -> float:
        """Expected wall time of all rounds and of gathering the samples, seconds."""
        split = self.model_copy(update={"costs": costs}).split
        cells = self.rows * self.columns
        gathering = costs.dispatch_s + costs.latency_s + cells * (GATHER_S + 2 * self.cell_bytes / costs.bytes_per_s)
        return self.samples * split.total_s + (self.samples + 1) * gathering

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The mean of the field: what leaves a cell enters its neighbour."""
        assert isinstance(system, AdvectedField)
        start = exact_averages(system, self.rows, self.columns, 0.0)
        steps = self.stride * self.samples
        # A step rounds a cell's value once and the sum of its fluxes three times; at the limit of stability the fluxes
        # are at most about twice the value.
        rounding = 8 * steps * ROUNDING[self.precision] * float(abs(start).max() / start.std())
        exchanged = self.exchange_effect(self.bound, steps) / float(start.std())
        why = f"{steps} steps, each rounded by at most 8 times half a unit in the last place, all to one side"
        mean = Conserved(
            series="mean",
            claim="the mean of the field stays what it was, in standard deviations of the field at the start",
            tolerance=rounding + exchanged,
            tolerance_from=f"{why}; the bound of the exchange adds {exchanged:.2g}" if exchanged else why,
            drift=False,
        )
        return (mean,)

    def exchange_effect(self, error: float, steps: int) -> float:
        """The most that errors of up to `error` in every halo make of the field after `steps`, root mean square.

        No mode of a stable scheme grows, so what a round adds stays at most what it was: 2 halos of 8 k rows a part,
        each value off by `error`, are sqrt(16 k parts / rows) `error` over the whole field. Rounds add up at worst.
        """
        k = self.split.steps_per_round
        rounds = math.ceil(self.stride / k) * steps / self.stride
        return rounds * error * math.sqrt(2 * STEP_HALO * k * self.parts / self.rows)

    def states(self, run: Realisation, outputs: Sequence[Output]) -> list[Finding]:
        """What a compressed exchange did (`core.split.States`); nothing where all was sent as it is."""
        system = run.point.system
        assert isinstance(system, AdvectedField)
        which = f"{run.point.label}, run {run.repeat + 1}" if run.repeat else run.point.label
        return exchange_findings(self, system, outputs, which) if self.bound else []

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """The whole grid in double precision, from the start, with spacing and time step ``2 factor`` times the study's."""
        system, coarsening = realisation.point.system, 2 * factor
        assert isinstance(system, AdvectedField)
        rows, columns = round(self.rows / coarsening), round(self.columns / coarsening)
        coarse_steps = max(1, self.stride * self.samples // 2)
        moment = Moment(
            rows=rows, columns=columns, time_step=self.time_step * coarsening, precision="float64",
            step=round(2 * coarse_steps / coarsening),
        )  # fmt: skip
        cost = rows * columns * moment.step / self.reckoned.cell_steps_per_s
        return self.task("converge", system, moment, realisation.tasks[-1].seed, realisation.repeat, cost)
