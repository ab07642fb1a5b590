"""The contract of a backend, as tests to derive from::

    class TestEmbedded(BackendContract):
        start = Embedded

`start(objects_root, workers)` gives a backend whose workers share the object store at `objects_root` and see the
environment of the test's process. A backend that is `Checkpointing` also takes `checkpoint_s`, the seconds between
checkpoints, and proves that attempts go on from them.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from manybody.core.errors import ManybodyError
from manybody.core.protocols import Backend, Checkpointing, Event
from manybody.core.task import Needs, Output, Task
from manybody.store.liveness import process_start
from manybody.store.objects import ObjectStore
from manybody.testing.methods import installed, let_through, task

FOREVER = 10**12  # steps of an iteration that will not end during a test
FINAL = ("finished", "failed", "lost")


@dataclass
class Bench:
    """A backend with its store, and every event that it has told, by attempt."""

    backend: Backend
    objects: ObjectStore
    told: dict[str, list[Event]] = field(default_factory=dict)

    def submit(self, task: Task, inputs: Mapping[str, str] | None = None, avoid: frozenset[str] = frozenset()) -> str:
        """Queue a task under a new attempt."""
        attempt = f"attempt-{len(self.told)}"
        self.told[attempt] = []
        self.backend.submit(attempt, task, inputs or {}, avoid)
        return attempt

    def resume(self, task: Task, checkpoint: str = "") -> str:
        """Queue a task under a new attempt that leaves checkpoints and goes on from one."""
        attempt = f"attempt-{len(self.told)}"
        self.told[attempt] = []
        assert isinstance(self.backend, Checkpointing)
        self.backend.submit_resumable(attempt, task, {}, frozenset(), checkpoint)
        return attempt

    def progress(self, attempt: str) -> list[float]:
        """The fraction that an attempt had behind it whenever it told."""
        return [event.progress.fraction for event in self.told[attempt] if event.kind == "progress" and event.progress]

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """The backend's events, noted as they come."""
        for event in self.backend.events(timeout):
            self.told[event.attempt].append(event)
            yield event

    def gather(self) -> None:
        """Wait until nothing is queued or running."""
        for _ in self.events():
            pass

    def final(self, attempt: str) -> Event:
        """How an attempt ended."""
        return self.told[attempt][-1]

    def run(self, task: Task, inputs: Mapping[str, str] | None = None, avoid: frozenset[str] = frozenset()) -> Event:
        """Run one task to its end."""
        attempt = self.submit(task, inputs, avoid)
        self.gather()
        return self.final(attempt)

    def output(self, event: Event) -> Output:
        """The output that a finished event tells of."""
        assert event.kind == "finished", f"expected a result; got {event}"
        return self.objects.get(event.result)

    def run_until_progress(self, task: Task) -> Event:
        """Submit a task and come back at its first progress, while it runs on."""
        attempt = self.submit(task)
        return next(event for event in self.events() if event.attempt == attempt and event.kind == "progress")


class BackendContract:
    """What every backend must do. Derive from it, give `start`, and name the class ``Test…``."""

    start: Callable[..., Backend]

    @pytest.fixture
    def bench(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
        """A backend with two workers that know the testing method; closed at the end."""
        for name, value in installed(tmp_path / "plugin").items():
            monkeypatch.setenv(name, value)
        backend = self.start(tmp_path / "objects", workers=2)
        yield Bench(backend, ObjectStore(tmp_path / "objects"))
        backend.close()

    @pytest.fixture
    def keeping(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
        """A backend that keeps checkpoints often; the test is skipped where it keeps none."""
        for name, value in installed(tmp_path / "plugin").items():
            monkeypatch.setenv(name, value)
        if "checkpoint_s" not in inspect.signature(self.start).parameters:
            pytest.skip("this backend keeps no checkpoints")
        backend = self.start(tmp_path / "objects", workers=2, checkpoint_s=0.1)
        assert isinstance(backend, Checkpointing)
        yield Bench(backend, ObjectStore(tmp_path / "objects"))
        backend.close()

    def test_a_task_gives_its_result_to_the_store(self, bench: Bench) -> None:
        """A finished event names the stored result, its size and the time it took."""
        wanted = task("add", terms=[1.5, 2.5])
        event = bench.run(wanted)
        assert bench.output(event).arrays["total"] == 4.0
        assert event.task == wanted.digest
        assert event.nbytes == bench.objects.path(event.result).stat().st_size
        assert event.seconds > 0

    def test_results_are_inputs_of_other_tasks(self, bench: Bench) -> None:
        """A stage gets its inputs by the names that the task gives them."""
        first, second = task("add", terms=[1.0]), task("add", terms=[2.0, 3.0])
        digests = {name: bench.run(needed).result for name, needed in (("a", first), ("b", second))}
        last = task("add", inputs={"a": first.digest, "b": second.digest}, terms=[10.0])
        output = bench.output(bench.run(last, digests))
        assert output.arrays["total"] == 16.0
        assert output.document["inputs"] == ["a", "b"]

    def test_each_of_many_tasks_starts_then_ends_once(self, bench: Bench) -> None:
        """Every attempt starts once and ends once, on one worker."""
        wanted = {bench.submit(task("add", terms=[float(number)])): float(number) for number in range(40)}
        bench.gather()
        for attempt, total in wanted.items():
            assert [event.kind for event in bench.told[attempt]] == ["started", "finished"]
            assert bench.output(bench.final(attempt)).arrays["total"] == total
        assert {len({event.worker for event in events}) for events in bench.told.values()} == {1}

    def test_results_come_as_they_are_ready_not_as_they_were_asked_for(self, bench: Bench) -> None:
        """A long task does not keep back the results of short ones."""
        slow = bench.submit(task("iterate", steps=FOREVER))
        quick = [bench.submit(task("add", terms=[float(number)])) for number in range(3)]
        for _ in bench.events():
            if all(bench.told[attempt] and bench.final(attempt).kind == "finished" for attempt in quick):
                break
        assert all(event.kind not in FINAL for event in bench.told[slow])

    def test_a_result_may_be_followed_up_while_listening(self, bench: Bench) -> None:
        """What is submitted between two events is run too."""
        bench.submit(task("add", terms=[0.0]))
        for event in bench.events():
            if event.kind == "finished" and len(bench.told) < 5:
                bench.submit(task("add", terms=[float(len(bench.told))]))
        assert [bench.final(attempt).kind for attempt in bench.told] == ["finished"] * 5

    def test_the_same_task_gives_the_same_bits_on_another_worker(self, bench: Bench) -> None:
        """A replica that avoids the first worker gives the same digest."""
        wanted = task("iterate", steps=5000)
        one = bench.run(wanted)
        other = bench.run(wanted.replicated(1), avoid=frozenset({one.worker}))
        assert one.worker != other.worker
        assert one.result == other.result

    def test_a_running_task_tells_how_far_it_is(self, bench: Bench, tmp_path: Path) -> None:
        """Progress comes while a task runs, in order, at most about five times a second."""
        wanted = task("iterate", steps=200_000, gate=str(tmp_path / "gate"))
        events = bench.told[bench.run_until_progress(wanted).attempt]
        let_through([wanted])
        bench.gather()
        fractions = [event.progress.fraction for event in events if event.progress]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
        assert len(fractions) <= 2 + 6 * events[-1].seconds, "more than about five reports a second"
        assert all(event.progress.unit == "steps" for event in events if event.progress)

    def test_a_task_that_cannot_be_done_fails_with_its_own_words(self, bench: Bench) -> None:
        """A `TaskError` arrives as it was raised."""
        event = bench.run(task("refuse", step=12))
        assert event.kind == "failed"
        assert event.reason == "the iteration diverged at step 12"

    def test_a_mistake_in_a_stage_fails_with_type_place_and_words(self, bench: Bench) -> None:
        """Any other exception fails the task alone; its worker goes on."""
        event = bench.run(task("divide", divisor=0))
        assert event.kind == "failed"
        for words in ("ZeroDivisionError", "division by zero", 'task.parameters["divisor"]', "methods.py"):
            assert words in event.reason
        assert bench.output(bench.run(task("divide", divisor=2))).document["quotient"] == 0.5

    @pytest.mark.parametrize(
        ("how", "words"),
        [
            ("exit", "SystemExit: 3"),
            ("garble", "OSError: cannot read ?.xyz"),
            ("not a number", "document.energy: expected a finite number"),
            ("objects", "array `x`: expected a dtype"),
            ("text", "expected an Output; the stage gave str"),
        ],
    )
    def test_whatever_a_stage_does_only_its_task_fails(self, bench: Bench, how: str, words: str) -> None:
        """Leaving the interpreter, messages that are no text, outputs that are none: failed, with the reason."""
        event = bench.run(task("misbehave", how=how))
        assert event.kind == "failed"
        assert words in event.reason
        assert bench.run(task("add", terms=[1.0])).kind == "finished"
        [progress] = [told.progress for told in bench.told[event.attempt] if told.progress]
        assert progress.fraction == 0.5
        assert str(progress.conserved) == "nan"
        assert progress.tolerance == float("inf")

    def test_what_a_failing_task_has_printed_is_shown_and_nothing_older(self, bench: Bench) -> None:
        """The output of a failing task is part of the reason, that of its predecessors is not."""
        assert "the first text" in bench.run(task("print", text="the first text")).reason
        for number in range(2):  # on either worker
            reason = bench.run(task("print", text=f"text {number}")).reason
            assert f"text {number}" in reason
            assert "the first text" not in reason

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"method": "perpetual-motion"}, ("perpetual-motion", "testing-arithmetic")),
            ({"version": "0"}, ("version 0", "Install")),
            ({"stage": "subtract"}, ("subtract", "add")),
        ],
    )
    def test_only_installed_methods_run(self, bench: Bench, change: dict[str, str], words: tuple[str, ...]) -> None:
        """A method, version or stage that a worker does not have is refused, and the reason says what to do."""
        event = bench.run(task("add", terms=[1.0]).model_copy(update=change))
        assert event.kind == "failed"
        for word in words:
            assert word in event.reason

    def test_a_task_that_needs_what_no_node_has_is_refused(self, bench: Bench) -> None:
        """It fails at once, and the reason says what was needed; needs that are met change nothing."""
        modest = task("add", terms=[1.0]).model_copy(update={"needs": Needs(memory_bytes=2**20)})
        assert bench.output(bench.run(modest)).arrays["total"] == 1.0
        for needs, word in (
            (Needs(cores=10**6), "cores"), (Needs(gpus=10**3), "gpu"), (Needs(memory_bytes=2**60), "memory"),
        ):  # fmt: skip
            event = bench.run(modest.model_copy(update={"needs": needs}))
            assert event.kind == "failed"
            assert word in event.reason.lower()

    def test_a_missing_input_is_named(self, bench: Bench) -> None:
        """An input that the store does not have fails the task and is named."""
        event = bench.run(task("add", inputs={"a": "0" * 64}, terms=[]), {"a": "ab" * 32})
        assert event.kind == "failed"
        assert "ab" * 32 in event.reason

    def test_a_killed_worker_loses_its_attempt_and_no_other(self, bench: Bench) -> None:
        """A worker's death costs only what it was computing."""
        deadly = bench.submit(task("crash"))
        others = [bench.submit(task("add", terms=[float(number)])) for number in range(6)]
        bench.gather()
        assert bench.final(deadly).kind == "lost"
        assert bench.final(deadly).worker in bench.final(deadly).reason
        assert [bench.final(attempt).kind for attempt in others] == ["finished"] * 6

    def test_workers_that_keep_dying_are_replaced(self, bench: Bench) -> None:
        """Tasks that kill their workers do not use up the backend."""
        deadly = [bench.submit(task("crash").model_copy(update={"repeat": repeat})) for repeat in range(5)]
        bench.gather()
        assert [bench.final(attempt).kind for attempt in deadly] == ["lost"] * 5
        assert bench.run(task("add", terms=[1.0])).kind == "finished"

    def test_no_event_follows_a_cancelled_attempt(self, bench: Bench) -> None:
        """Cancelling works while queued, while running, and for attempts that are not known."""
        running = bench.run_until_progress(task("iterate", steps=FOREVER)).attempt
        another = bench.run_until_progress(task("iterate", steps=FOREVER).replicated(1)).attempt
        queued = bench.submit(task("add", terms=[1.0]))
        for attempt in (running, another, queued, "unknown"):
            bench.backend.cancel(attempt)
        before = {attempt: len(events) for attempt, events in bench.told.items()}
        bench.gather()
        assert {attempt: len(events) for attempt, events in bench.told.items()} == before
        assert bench.run(task("add", terms=[2.0])).kind == "finished"

    def test_a_task_keeps_off_the_workers_it_avoids(self, bench: Bench) -> None:
        """Where every worker is to be avoided, a fresh one is found."""
        seen: frozenset[str] = frozenset()
        for replica in range(4):  # more than there are workers at once
            worker = bench.run(task("add", terms=[1.0]).replicated(replica), avoid=seen).worker
            assert worker not in seen
            seen |= {worker}

    def test_listening_ends_when_nothing_is_told_for_a_while(self, bench: Bench) -> None:
        """`events` ends at its timeout, and at once when nothing is queued or running."""
        assert list(bench.events()) == []
        attempt = bench.run_until_progress(task("iterate", steps=FOREVER)).attempt
        for _ in bench.events(timeout=0.0):
            assert len(bench.told[attempt]) < 100
        bench.backend.cancel(attempt)
        assert list(bench.events(timeout=5.0)) == []

    def test_the_nodes_are_told_with_what_they_have(self, bench: Bench) -> None:
        """Nodes have different names and tell their workers, threads and memory."""
        nodes = bench.backend.nodes()
        assert len({node.name for node in nodes}) == len(nodes) >= 1
        assert sum(node.workers for node in nodes) == 2
        assert all(node.threads >= 1 and node.memory_bytes > 2**20 for node in nodes)

    def test_a_task_is_lent_what_was_promised(self, bench: Bench) -> None:
        """A stage's context and the limits of numeric libraries agree with the node's threads."""
        lent = bench.output(bench.run(task("describe"))).document
        assert lent["threads"] in {node.threads for node in bench.backend.nodes()}
        assert lent["omp"] == str(lent["threads"])
        assert lent["device"]

    def test_closing_leaves_no_process_behind(self, bench: Bench) -> None:
        """Closing ends all workers, running ones too; a closed backend takes no more tasks."""
        where = [bench.output(bench.run(task("describe").replicated(replica))).document for replica in range(4)]
        bench.run_until_progress(task("iterate", steps=FOREVER))
        bench.backend.close()
        here = {place["pid"] for place in where if place["host"] == platform.node()}
        assert {pid: process_start(pid) for pid in here} == dict.fromkeys(here)
        with pytest.raises(ManybodyError):
            bench.backend.submit("late", task("add", terms=[1.0]), {})
        bench.backend.close()

    def test_an_attempt_goes_on_from_a_checkpoint_with_the_same_bits(self, keeping: Bench, tmp_path: Path) -> None:
        """A checkpoint is in the store when it is told of; who goes on from it does not begin at the start."""
        wanted = task("iterate", steps=200_000, gate=str(tmp_path / "gate"))
        first = keeping.resume(wanted)
        left = next(event for event in keeping.events() if event.kind == "checkpoint")
        keeping.backend.cancel(first)
        assert left.attempt == first
        assert left.task == wanted.digest
        assert left.progress is not None
        assert left.progress.fraction > 0
        assert left.nbytes == keeping.objects.path(left.result).stat().st_size
        second = keeping.resume(wanted, left.result)
        next(event for event in keeping.events() if event.attempt == second and event.kind == "progress")
        plain = keeping.run_until_progress(wanted).attempt
        let_through([wanted])
        keeping.gather()
        assert min(keeping.progress(second)) >= left.progress.fraction
        assert keeping.final(second).result == keeping.final(plain).result
        assert {told.kind for told in keeping.told[plain]} == {"started", "progress", "finished"}, "none were wanted"
        gone = keeping.resume(task("iterate", steps=5000), "ab" * 32)
        keeping.gather()
        assert keeping.final(gone).result == keeping.run(task("iterate", steps=5000)).result, "it begins at the start"

    def test_arrays_of_some_size_go_through_unchanged(self, bench: Bench) -> None:
        """Inputs and results of more than a message's size arrive bit for bit."""
        values = Output({"total": np.linspace(0, 1, 200_000)})
        stored = bench.objects.put(values)
        wanted = task("add", inputs={"a": "0" * 64}, terms=[1.0])
        total = bench.output(bench.run(wanted, {"a": stored.digest})).arrays["total"]
        assert np.array_equal(total, values.arrays["total"] + 1.0)
