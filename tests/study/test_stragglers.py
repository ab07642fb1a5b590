"""Stragglers are tried twice, elsewhere, once; whoever asked sees one attempt. By a scripted backend and a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from manybody.core.protocols import Checkpointing, Event, NodeInfo
from manybody.core.task import Progress, Task
from manybody.store.queue import TWIN
from manybody.study.costs import Timing, kind_of
from manybody.study.stragglers import ResumableStragglers, Stragglers, watched

TASK = Task(method="md", stage="run", version="1", system={}, parameters={}, cost=10.0)
HISTORY = [Timing(kind_of(TASK), 10.0, 10.0, node) for node in ("fast", "slow")]


@dataclass
class Scripted:
    """A backend that tells what a test has it tell."""

    told: list[Event] = field(default_factory=list)
    asked: dict[str, tuple[Task, frozenset[str], str | None]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    there: tuple[str, ...] = ("fast", "slow")

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        self.asked[attempt] = (task, avoid, None)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        while self.told:
            yield self.told.pop(0)

    def cancel(self, attempt: str) -> None:
        self.cancelled.append(attempt)

    def nodes(self) -> list[NodeInfo]:
        return [NodeInfo(name=name, workers=1, threads=1) for name in self.there]

    def close(self) -> None: ...


class ScriptedResumable(Scripted):
    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        self.asked[attempt] = (task, avoid, checkpoint)


class Bench:
    """Stragglers over a scripted backend, and the time."""

    def __init__(self, backend: Scripted, history: list[Timing] | None = None) -> None:
        self.now = 0.0
        self.backend = backend
        kind = ResumableStragglers if isinstance(backend, Checkpointing) else Stragglers
        self.stragglers = kind(backend, HISTORY if history is None else history, lambda: self.now)

    def at(self, now: float, *events: Event) -> list[Event]:
        """What is passed on of these events at some time."""
        self.now = now
        self.backend.told = list(events)
        return list(self.stragglers.events())

    def start(self, attempt: str = "a", worker: str = "slow/w", task: Task = TASK) -> None:
        self.stragglers.submit(attempt, task, {})
        assert [event.kind for event in self.at(self.now, told("started", attempt, worker))] == ["started"]


def told(kind: str, attempt: str, worker: str, fraction: float | None = None, **more: object) -> Event:
    progress = None if fraction is None else Progress(fraction)
    return Event(kind, attempt, TASK.digest, worker, progress, **more)  # type: ignore[arg-type]  # words of a test


@pytest.fixture
def bench() -> Bench:
    return Bench(Scripted())


def test_a_straggler_by_its_progress_is_tried_elsewhere_and_the_first_to_finish_counts(bench: Bench) -> None:
    """After 5 s a twentieth is done: 95 s are left here, 10 s are needed there."""
    bench.start()
    passed = bench.at(5.0, told("progress", "a", "slow/w", 0.0), told("progress", "a", "slow/w", 0.05))
    assert [event.kind for event in passed] == ["progress", "progress"]
    bench.at(6.5)
    task, avoid, _ = bench.backend.asked["a" + TWIN]
    assert task == TASK
    assert {"slow/w", "slow/-"} <= avoid
    assert "fast/-" not in avoid
    assert bench.at(7.0, told("started", "a" + TWIN, "fast/w")) == []
    end = told("finished", "a" + TWIN, "fast/w", result="r", nbytes=1, seconds=9.0)
    assert bench.at(17.0, end) == [replace(end, attempt="a")]
    assert bench.backend.cancelled == ["a"]
    assert bench.at(90.0, told("finished", "a", "slow/w", result="late")) == []


def test_where_the_first_try_is_quicker_the_second_is_cancelled(bench: Bench) -> None:
    bench.start()
    bench.at(31.0)  # 21 s overdue: it may well be as long again
    bench.at(33.0)
    assert "a" + TWIN in bench.backend.asked
    end = told("finished", "a", "slow/w", result="r", seconds=33.0)
    assert bench.at(34.0, end) == [end]
    assert bench.backend.cancelled == ["a" + TWIN]


def test_what_is_on_time_is_left_alone(bench: Bench) -> None:
    """At the expected pace, a little late, or nearly done: a second try would end no sooner."""
    bench.start()
    bench.at(5.0, told("progress", "a", "slow/w", 0.0), told("progress", "a", "slow/w", 0.5))
    bench.at(12.0)
    bench.at(13.0, told("progress", "a", "slow/w", 0.6))
    bench.at(20.0, told("progress", "a", "slow/w", 0.95))
    bench.at(21.5)
    assert set(bench.backend.asked) == {"a"}


def test_without_history_what_the_first_try_shows_is_believed() -> None:
    """A prediction of 10 s that becomes 100 s on one node would become that on any other: nothing is gained."""
    bench = Bench(Scripted(), [])
    bench.start()
    bench.at(5.0, told("progress", "a", "slow/w", 0.0), told("progress", "a", "slow/w", 0.05))
    bench.at(6.5)
    assert set(bench.backend.asked) == {"a"}


def test_where_nothing_is_known_nothing_is_tried_twice() -> None:
    """Neither what such tasks take nor how far it is: that it takes longer than predicted says nothing."""
    bench = Bench(Scripted(), [])
    bench.start()
    bench.at(1000.0)
    assert set(bench.backend.asked) == {"a"}


def test_nothing_is_tried_twice_while_work_waits_for_room(bench: Bench) -> None:
    bench.start()
    bench.stragglers.submit("b", TASK, {})
    bench.at(60.0)
    assert set(bench.backend.asked) == {"a", "b"}
    bench.at(60.1, told("started", "b", "fast/w"))
    bench.at(62.0)
    assert set(bench.backend.asked) == {"a", "b"}, "no node is free"


def test_one_machine_is_no_other(bench: Bench) -> None:
    bench.backend.there = ("slow",)
    bench.start()
    bench.at(60.0)
    assert set(bench.backend.asked) == {"a"}


def test_a_node_that_is_as_slow_or_to_be_avoided_is_not_asked(bench: Bench) -> None:
    history = [Timing(kind_of(TASK), 10.0, 10.0, "fast"), Timing(kind_of(TASK), 10.0, 100.0, "snail")] * 5
    bench = Bench(Scripted(there=("fast", "slow", "snail")), history)
    bench.stragglers.submit("a", TASK, {}, frozenset({"fast/other"}))
    bench.at(0.0, told("started", "a", "slow/w"))
    bench.at(70.0)
    assert set(bench.backend.asked) == {"a"}, "the fast one must not, the snail would take too long"


def test_one_lost_try_is_no_loss_but_both_are(bench: Bench) -> None:
    bench.start()
    bench.at(60.0)
    assert bench.at(61.0, told("lost", "a", "slow/w", reason="gone")) == []
    [last] = bench.at(62.0, told("lost", "a" + TWIN, "fast/w", reason="gone too"))
    assert (last.kind, last.attempt, last.reason) == ("lost", "a", "gone too")


def test_a_failure_of_the_task_ends_both_one_of_a_node_does_not(bench: Bench) -> None:
    for attempt in ("a", "b"):
        bench.start(attempt)
        bench.at(bench.now + 60.0)
        assert attempt + TWIN in bench.backend.asked
        bench.at(bench.now + 1.0, told("started", attempt + TWIN, "fast/w"))
        full = told("failed", attempt + TWIN, "fast/w", reason="disk full", node_fault=True)
        wrong = told("failed", attempt, "slow/w", reason="it diverged")
        if attempt == "a":
            assert bench.at(bench.now, full) == []
        assert bench.at(bench.now, wrong) == [wrong]


def test_progress_is_that_of_the_try_that_is_further(bench: Bench) -> None:
    bench.start()
    bench.at(1.0, told("progress", "a", "slow/w", 0.2))
    bench.at(60.0)
    bench.at(61.0, told("started", "a" + TWIN, "fast/w"))
    passed = bench.at(62.0, told("progress", "a" + TWIN, "fast/w", 0.1), told("progress", "a" + TWIN, "fast/w", 0.3))
    assert [(event.attempt, event.progress.fraction) for event in passed if event.progress] == [("a", 0.3)]


def test_cancelling_stops_both(bench: Bench) -> None:
    bench.start()
    bench.at(60.0)
    bench.stragglers.cancel("a")
    assert bench.backend.cancelled == ["a", "a" + TWIN]
    assert bench.at(61.0, told("started", "a" + TWIN, "fast/w"), told("finished", "a", "slow/w")) == []


def test_a_second_try_goes_on_from_the_last_checkpoint() -> None:
    bench = Bench(ScriptedResumable())
    assert isinstance(bench.stragglers, Checkpointing)
    bench.stragglers.submit_resumable("a", TASK, {}, frozenset(), "")
    bench.at(0.0, told("started", "a", "slow/w"))
    passed = bench.at(1.0, told("checkpoint", "a", "slow/w", 0.5, result="left"))
    assert [event.kind for event in passed] == ["checkpoint"]
    bench.at(60.0)
    assert bench.backend.asked["a" + TWIN][2] == "left"


def test_a_backend_keeps_checkpoints_as_it_did() -> None:
    assert not isinstance(watched(Scripted()), Checkpointing)
    assert isinstance(watched(ScriptedResumable()), Checkpointing)
