"""What a system, a method, a measure, a check, an engine and a backend must offer.

Specs are pydantic classes to derive from, because study files are parsed into them; the rest are protocols.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from manybody.core.certificate import CheckKind, Finding
from manybody.core.random import Key
from manybody.core.spec import NamedSpec, Spec
from manybody.core.task import Output, Progress, Task
from manybody.core.units import UnitSystem

if TYPE_CHECKING:
    from manybody.core.study import Plan, Point, Realisation

# --- systems and methods ---------------------------------------------------------------------------------------


class SystemSpec(NamedSpec):
    """What is simulated, and its parameters. Knows its symmetries and conserved quantities.

    `scales` is the unit system that the numbers of its tasks are in, None where any will do.
    """

    scales: ClassVar[UnitSystem | None] = None
    symmetries: ClassVar[tuple[str, ...]] = ()
    conserved: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Conserved:
    """A quantity that a stage keeps constant, recorded in its output as the array `series` over the array ``time``.

    The claim: its drift per unit time stays within `tolerance`, or its largest absolute deviation from the first
    sample where `drift` is false. The series is already per degree of freedom and in units of kT where that applies.
    """

    series: str
    claim: str
    tolerance: float
    tolerance_from: str
    drift: bool = True


@dataclass(frozen=True)
class Convergence:
    """How a method converges: `quantity` of `stage`'s output document falls as `parameter` to the power `order`."""

    stage: str
    parameter: str
    quantity: str
    order: float
    claim: str


class MethodSpec(NamedSpec, ABC):
    """How a system is advanced or evaluated: parameters, and the chain of tasks that one realisation becomes.

    `stages` maps a stage to ``module:function``, imported only where a task runs; `gangs` likewise the stages that
    several processes run together (`GangStage`); a task of one says in its parameters how many `members` it takes, a core
    each, and by which `channel` they are linked. `masked` likewise the stages that run only inside secure aggregation:
    no node gives away what they give. `extent` is the field that a study's `scale` multiplies.
    `trial` is a system and changes to the method, as documents, whose first task takes seconds: what nodes are
    measured with.
    """

    version: ClassVar[str]
    systems: ClassVar[tuple[str, ...]]
    stages: ClassVar[Mapping[str, str]]
    gangs: ClassVar[Mapping[str, str]] = {}
    masked: ClassVar[Mapping[str, str]] = {}
    extent: ClassVar[str]
    convergence: ClassVar[Convergence | None] = None
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = None

    @abstractmethod
    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """The tasks of one realisation in order, and those of them that carry what is measured."""

    @abstractmethod
    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """What the measured stages conserve, and how well."""

    @abstractmethod
    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A short run of `convergence.stage` from the end of a realisation, its `parameter` multiplied by `factor`."""

    def suits(self, system: SystemSpec) -> None:
        """Refuse (`core.spec.refuse`) a system whose parameters this method cannot run with its own; all suit by default."""
        return None

    def demands(self) -> tuple[str, ...]:
        """The checks without which no study with this method is accepted; none by default."""
        return ()

    def repeatable(self, stage: str) -> bool:
        """Whether honest nodes of one kind give equal bits for a task of `stage`; not where a node's own secret enters."""
        return True

    def task(
        self, stage: str, system: SystemSpec, parameters: Spec, seed: int, repeat: int, cost: float,
        inputs: Mapping[str, str] | None = None,
    ) -> Task:  # fmt: skip
        """A task of this method, which takes about `cost` core-seconds; `inputs` are digests of other tasks by name."""
        return Task(
            method=self.name,
            stage=stage,
            version=self.version,
            system=system.document(),
            parameters=parameters.document(),
            inputs=dict(inputs or {}),
            seed=seed,
            repeat=repeat,
            cost=cost,
        )

    def extended(self, scale: float) -> MethodSpec:
        """The same method with its extent multiplied by `scale`."""
        if scale == 1.0:
            return self
        return type(self).model_validate(self.document() | {self.extent: getattr(self, self.extent) * scale})


class Context(Protocol):
    """What a node lends a running task."""

    device: str
    threads: int

    def progress(self, progress: Progress) -> None:
        """Report how far the task is; cheap, and free to be dropped."""

    def resume(self) -> Output | None:
        """The last checkpoint of this very task that an earlier attempt left; None where there is none to go on from."""

    def keep(self, output: Output) -> None:
        """Offer a checkpoint: all that is needed to end with the same bits as without an interruption.

        Cheap to call often: it is stored at intervals, and not at all where nobody could use it.
        """


class Stage(Protocol):
    """The pure function behind a task. Raises `TaskError` where no result can be given."""

    def __call__(self, task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        """The output of `task`, from its inputs by name."""


class Ring(Protocol):
    """What links the members of a gang: each has a neighbour to the west and one to the east, in a ring."""

    rank: int
    size: int

    def exchange(self, to_west: np.ndarray, to_east: np.ndarray, from_west: np.ndarray, from_east: np.ndarray) -> None:
        """Send to both neighbours and fill what they send here; contiguous arrays, equal in shape and type in every member."""


class GangStage(Protocol):
    """The function that every member of a gang runs at the same time.

    A member's output is its part: the parts of an array are joined along its first axis, the documents are alike.
    """

    def __call__(self, task: Task, inputs: Mapping[str, Output], ring: Ring, context: Context) -> Output:
        """The part of member `ring.rank`."""


# --- engines ---------------------------------------------------------------------------------------------------

State = TypeVar("State")


@runtime_checkable
class Engine(Protocol[State]):
    """Advances a system: pure functions on frozen states."""

    def init(self, key: Key) -> State:
        """A starting state."""

    def step(self, state: State, steps: int = 1) -> State:
        """The state `steps` time steps later; the same bits for the same state."""

    def observables(self, state: State) -> dict[str, float]:
        """Energies, pressure, temperature: whatever the engine can tell of a state."""

    def conserved(self, state: State) -> dict[str, float]:
        """The quantities that must not change, by name."""

    def symmetric(self, state: State, key: Key) -> Iterator[tuple[str, State]]:
        """Random images of a state under each declared symmetry, by name: observables must not change."""


# --- measures and checks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """What a measure reads from one realisation, in order of simulated time.

    `values` is [samples] for a number or [samples, bins] for a curve over `axis`: [bins], or [bins, 2] where the bins are
    cells of a plane. `weights` [samples] carry samples from the ensemble that was run to the one that is asked for (all 1
    where they are the same).
    """

    values: np.ndarray
    weights: np.ndarray
    interval: float
    axis: np.ndarray | None = None


@dataclass(frozen=True)
class ClosedForm:
    """What a measure gives exactly at a point, in the unit of the measure, and how close a sound run comes to it.

    `truncation` is how far the method itself is known to lie from the value, where it is; the tolerance covers it.
    """

    value: float
    tolerance: float
    tolerance_from: str
    source: str = ""
    truncation: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A measured value with its standard error, both scalars or [bins].

    `samples_effective` counts independent samples after blocking; `runs` are the means of the realisations.
    """

    value: Any
    error: Any
    samples: int
    samples_effective: float
    correlation_time: float
    runs: tuple[float, ...] = ()
    run_errors: tuple[float, ...] = ()
    axis: np.ndarray | None = None


class MeasureSpec(NamedSpec, ABC):
    """Something measured: how to read it from the outputs of a realisation's measured tasks.

    `systems` names those that it is defined for, where that is not each one that its `methods` run.
    """

    symbol: ClassVar[str]
    unit: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    systems: ClassVar[tuple[str, ...]] = ()

    def suits(self, system: SystemSpec, method: MethodSpec) -> None:
        """Refuse (`core.spec.refuse`) settings under which there is nothing of it to measure; all suit by default."""
        return None

    @abstractmethod
    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """The samples of one realisation."""

    def expected(self, point: Point, outputs: Sequence[Output]) -> np.ndarray | None:
        """For a curve: what it should be, [bins] over the axis of the samples, to be drawn beside it; None by default."""
        return None

    def exact(self, point: Point) -> ClosedForm | None:
        """What theory says that this measure gives at a point, where it is known and free of chance; None by default."""
        return None


class Evidence(Protocol):
    """What a check may look at."""

    plan: Plan

    def output(self, task: Task) -> Output:
        """The result of a task."""

    def computed_by(self, task: Task) -> str:
        """The worker that computed a task's result."""

    def result_digest(self, task: Task) -> str:
        """The digest of a task's result: equal digests are equal bits."""

    def samples(self, realisation: Realisation, measure: str) -> Samples:
        """What a measure read from one realisation."""

    def estimate(self, point: Point, measure: str) -> Estimate:
        """A measured value at a point, over all its realisations."""


class CheckSpec(NamedSpec, ABC):
    """One kind of claim tested: the extra tasks it needs, and its findings.

    `methods` names those whose studies it is for, where that is not any.
    """

    kind: ClassVar[CheckKind]
    methods: ClassVar[tuple[str, ...]] = ()

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """Tasks beyond those of the study that this check needs as evidence."""
        return ()

    @abstractmethod
    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """The findings; `tasks` are those that this check asked for."""


# --- backends --------------------------------------------------------------------------------------------------


class NodeInfo(Spec):
    """A machine that runs tasks. `speed` is predicted cost done a second and worker, by method, as the machine measured it."""

    name: str
    workers: int
    threads: int
    devices: tuple[str, ...] = ()
    memory_bytes: int = 0
    address: str = ""
    speed: dict[str, float] = {}


@dataclass(frozen=True)
class Event:
    """What a backend tells of an attempt.

    `started`; `progress` (with `progress`); `finished` (with the `result` digest, its size and the time it took);
    `failed` (the task itself: `reason`, not worth a retry); `lost` (the worker: worth a retry). `node_fault` says of a
    failure that the store of the machine was to blame (a full disk), so that another machine may well succeed.
    `checkpoint` (`result` is its digest, with its size, and `progress`) comes only from `Checkpointing` backends.
    """

    kind: Literal["started", "progress", "checkpoint", "finished", "failed", "lost"]
    attempt: str
    task: str
    worker: str = ""
    progress: Progress | None = None
    result: str = ""
    nbytes: int = 0
    seconds: float = 0.0
    reason: str = ""
    node_fault: bool = False


class Backend(Protocol):
    """Runs tasks somewhere. One contract suite for all: `manybody.testing.backend`."""

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        """Queue an attempt; `inputs` maps input names to result digests; workers in `avoid` must not run it."""

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come; ends after `timeout` seconds without one, or when nothing is queued or running."""

    def cancel(self, attempt: str) -> None:
        """Stop an attempt; no event of it follows."""

    def nodes(self) -> list[NodeInfo]:
        """The machines there are."""

    def close(self) -> None:
        """Stop all workers and free what is held."""


@runtime_checkable
class Checkpointing(Protocol):
    """What a backend offers besides where its workers share the conductor's store: attempts that go on from checkpoints."""

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        """Like `submit`, and tell of checkpoints; `checkpoint` is the digest of the one to go on from, or empty."""
