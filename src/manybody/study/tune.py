"""Tune: what a study leaves to the costs of the network is chosen once, from rounds that were timed there.

The figures are kept in the home, one file a network and set of trials, and measured again when a study is run afresh.
The choice is kept too, one file a study: a study that is resumed has the same tasks, whatever was measured since and
wherever it goes on.
"""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import Field, ValidationError

from manybody.core.digest import digest_document
from manybody.core.protocols import Backend, Event, MethodSpec, NodeInfo
from manybody.core.spec import Frozen
from manybody.core.study import Plan, Point, Realisation, Study
from manybody.core.task import Task
from manybody.network.addresses import open_backend
from manybody.network.rounds import Timing, fit
from manybody.numerics.rounds import Costs, Trial, Tunable
from manybody.store.home import Home
from manybody.store.ledger import Ledger
from manybody.store.provenance import usable_cores
from manybody.study.conduct import Conductor, Tally

if TYPE_CHECKING:
    from manybody.study.run import Listener, Outcome

FOLDER = "rounds"  # below the home
TURNS = 2  # each trial is timed so often, after one that warms up; the quicker counts: others on the machine only add time


class Figures(Frozen):
    """What was measured, on which network, and when (seconds since 1970)."""

    network: str
    costs: Costs
    measured: float = Field(ge=0)


@dataclass(frozen=True)
class Tuned:
    """A study with its choice made. `figures` is None where it left none; `expected_s` is the time foreseen for its runs."""

    study: Study
    chosen: str = ""
    figures: Figures | None = None
    expected_s: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen and what it is expected to cost, for a reader."""
        if self.figures is None:
            return ()
        costs = self.figures.costs
        return (
            f"{self.chosen}, for a network with {1e3 * costs.dispatch_s:.3g} ms to dispatch a task, "
            f"{1e3 * costs.latency_s:.3g} ms of latency, {costs.bytes_per_s / 1e6:.3g} MB/s and "
            f"{costs.cell_steps_per_s / 1e6:.3g} million cell steps/s ({self.figures.network}); "
            f"{self.expected_s:.3g} s predicted",
        )

    def told(self, measured_s: float | None) -> dict[str, Any]:
        """For the report: the choice, and the prediction beside the measured time (None where not all of it was run now)."""
        if self.figures is None:
            return {}
        took = "not all of it ran now" if measured_s is None else f"{measured_s:.3g} s"
        return {
            "rounds": {
                "chosen": self.chosen, "predicted": f"{self.expected_s:.3g} s", "measured": took,
                "network": self.figures.network, "costs": self.figures.costs.document(),
            }
        }  # fmt: skip


@runtime_checkable
class Speaks(Protocol):
    """A listener that can be told something in words."""

    def say(self, text: str) -> None:
        """Tell it to a person."""


def tune(study: Study, home: Home, address: str | None, workers: int | None, fresh: bool, listener: object = None) -> Tuned:
    """The study with everything chosen that it leaves to the costs of the network at `address`.

    Where nothing is known of the network, it is measured now, with `workers` workers where it is this machine, which a
    `listener` that `Speaks` is told. With `fresh` all is measured and chosen anew.
    """
    if not any(_is_open(point) for point in _points(study)):
        return Tuned(study)
    choice = home.path / FOLDER / "studies" / f"{study.digest}.json"
    figures = None if fresh else _read(choice)
    if figures is None:
        figures = _keep(choice, _figures(study, home, address, workers, fresh, listener), replace=fresh)
    return _settle(study, figures)


def _figures(study: Study, home: Home, address: str | None, workers: int | None, fresh: bool, listener: object) -> Figures:
    """What is known of a network, or what is measured there now."""
    network = address or f"{workers or usable_cores()} workers on {platform.node()}"
    assert isinstance(study.method, Tunable)
    asked = [astuple(trial.load) for trial in study.method.trials(1, 0)]  # fields of other sizes are tried with other trials
    place = home.path / FOLDER / "networks" / f"{digest_document([network, study.method.name, asked])}.json"
    with _alone(home):
        known = None if fresh else _read(place)
        if known is not None:
            return known
        if isinstance(listener, Speaks):
            listener.say(f"Measuring what rounds cost on {network}, once, from a few that are timed.")
        with closing(open_backend(address, home, workers)) as backend:
            costs = measure(study, home, backend)
        return _keep(place, Figures(network=network, costs=costs, measured=time.time()), replace=True)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Be the one run of a home that measures: two at once would disturb each other's times and remove each other's results."""
    folder = home.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or its process killed
        yield


def measure(study: Study, home: Home, backend: Backend) -> Costs:
    """What rounds of the study's method cost on a backend, from trials that are conducted as any plan is."""
    method = study.method
    assert isinstance(method, Tunable)
    workers = max(1, sum(node.workers for node in backend.nodes()))
    home.path.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="trial-", dir=home.path) as folder,
        closing(Ledger(Path(folder) / "ledger.sqlite")) as ledger,
    ):
        ledger.record_study(study)
        bench = _Bench(study, home, ledger, backend)
        quickest: dict[int, Timing] = {}
        for turn in range(TURNS + 1):
            for number, trial in enumerate(method.trials(workers, turn)):
                seconds = bench.time(trial)
                if turn > 0 and (number not in quickest or seconds < quickest[number].seconds):
                    quickest[number] = Timing(trial.load, seconds)
        return fit(list(quickest.values()), workers)


@dataclass(frozen=True)
class _Bench:
    """Where trials are timed: a ledger of their own, and the network as it is."""

    study: Study
    home: Home
    ledger: Ledger
    backend: Backend

    def time(self, trial: Trial) -> float:
        """Seconds that the timed tasks of a trial take; their results are removed afterwards."""
        tasks = (*trial.before, *trial.timed)
        try:
            self._conduct(trial.before)
            return self._conduct(tasks)
        finally:
            rows = [self.ledger.result(task.digest) for task in tasks]
            self._remove({row.result for row in rows if row})

    def _conduct(self, tasks: tuple[Task, ...]) -> float:
        plan = Plan(self.study, (Realisation(self.study.point(0), 0, tasks, ()),))
        run = self.ledger.begin_run(self.study.digest, self.home.path, "trial", {})
        self.ledger.add_tasks(run, tasks)
        conductor = Conductor(plan, run, self.ledger, self.home.objects, self.backend)
        conductor.recover()
        begin = time.perf_counter()
        conductor.conduct(_ignore)
        seconds = time.perf_counter() - begin
        self.ledger.end_run(run, "trial", None, None)
        return seconds

    def _remove(self, results: set[str]) -> None:
        """Remove results, but for those that the home's own ledger has, from whatever study."""
        with closing(self.home.ledger()) as ledger:
            for result in results:
                if not ledger.is_needed(result):
                    self.home.objects.remove(result)


class Stopwatch:
    """A `Listener` between a run and its own: the wall time of a plan's realisations, from the first start to the last end."""

    def __init__(self, plan: Plan, listener: Listener) -> None:
        self._listener = listener
        self._wanted = {task.digest for run in plan.realisations for task in run.tasks}
        self._left = len(self._wanted)
        self._begin: float | None = None
        self.seconds: float | None = None

    def planned(self, plan: Plan, cached: int, nodes: Sequence[NodeInfo], expected_s: float) -> None:
        """Pass on what will be done."""
        self._listener.planned(plan, cached, nodes, expected_s)

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        """Take note of an event and pass it on; `seconds` is known once all of the tasks have finished under it."""
        if event.task in self._wanted and event.kind == "started" and self._begin is None:
            self._begin = time.monotonic()
        if event.task in self._wanted and event.kind == "finished" and self._begin is not None:
            self._left -= 1
            self.seconds = time.monotonic() - self._begin if self._left == 0 else None
        self._listener.event(event, task, tally, left_s)

    def judged(self, outcome: Outcome) -> None:
        """Pass on the verdict."""
        self._listener.judged(outcome)


def _settle(study: Study, figures: Figures) -> Tuned:
    """The choice itself: in the method where all points agree, else through the costs, from which each point's follows."""
    methods = [point.method for point in _points(study)]
    settled = [(method, method.settled(figures.costs)) for method in methods if isinstance(method, Tunable) and method.is_open()]
    changes = [_changes(method, after) for method, after in settled]
    alike = len(settled) == len(methods) and all(each == changes[0] for each in changes)
    chosen = changes[0] if alike else {"costs": figures.costs.document()}
    method = type(study.method).model_validate(study.method.document() | chosen)
    expected = study.repeats * sum(method.expected_s(figures.costs) for method, _ in settled)
    fields = {name: getattr(study, name) for name in type(study).model_fields}
    words = _words(chosen) if alike else "each point its own split"
    return Tuned(Study.model_validate(fields | {"method": method}), words, figures, expected)


def _words(chosen: Mapping[str, Any]) -> str:
    """Fields and their values for a reader: ``steps per round 7, exchange: bound 1e-08, when never``."""
    told = {name.replace("_", " "): value for name, value in chosen.items()}
    return ", ".join(
        f"{name}: {_words(value)}" if isinstance(value, Mapping) else f"{name} {value}" for name, value in told.items()
    )


def _changes(before: MethodSpec, after: MethodSpec) -> dict[str, Any]:
    known = before.document()
    return {name: value for name, value in after.document().items() if value != known[name]}


def _points(study: Study) -> list[Point]:
    return [study.point(index) for index in range(len(study.sweep))]


def _is_open(point: Point) -> bool:
    return isinstance(point.method, Tunable) and point.method.is_open()


def _ignore(*told: object) -> None:
    """Nobody watches a trial."""


def _read(place: Path) -> Figures | None:
    """The figures in a file; None where there is none, or none that this release understands."""
    try:
        return Figures.model_validate_json(place.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _keep(place: Path, figures: Figures, replace: bool) -> Figures:
    """Write figures into a file, whole or not at all; without `replace`, of several runs the first one's are taken."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    fresh.write_text(figures.model_dump_json(indent=2) + "\n", encoding="utf-8")
    try:
        if replace:
            fresh.replace(place)
        else:
            os.link(fresh, place)
    except FileExistsError:
        return _read(place) or figures
    finally:
        fresh.unlink(missing_ok=True)
    return figures
