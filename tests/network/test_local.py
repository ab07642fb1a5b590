"""The embedded backend: real worker processes, started late, killed, stopped, replaced."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from manybody.core.protocols import Event
from manybody.core.task import Output
from manybody.network.local import Embedded
from manybody.network.messages import BackendError
from manybody.store.objects import ObjectStore
from manybody.store.provenance import architecture, provenance, usable_cores
from manybody.testing.methods import installed, let_through, task

FOREVER = 10**12  # steps
WARM_START_S = 2.0
DYING_S = 10.0  # a killed process is gone in milliseconds; this is for a machine that has other things to do


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Embedded]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Embedded(tmp_path / "objects", workers=1) as backend:
        yield backend


def first(backend: Embedded, kind: str) -> Event:
    return next(event for event in backend.events() if event.kind == kind)


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "manybody.network.worker" in child.cmdline()]


def test_no_process_starts_before_there_is_work(backend: Embedded) -> None:
    assert list(backend.events()) == []
    assert workers() == []
    backend.submit("a", task("add", terms=[1.0]), {})
    assert len(workers()) == 1


@pytest.mark.parametrize("wrong", [{"x": np.zeros(3)}, {"y": np.zeros(())}], ids=["shape", "name"])
def test_a_task_that_fails_from_a_checkpoint_begins_anew(backend: Embedded, wrong: dict[str, np.ndarray]) -> None:
    """Somebody else's checkpoint may hold anything: it costs time, never the result."""
    wanted = task("iterate", steps=3000)
    backend.submit("undisturbed", wanted, {})
    result = first(backend, "finished").result
    said = {"checkpoint_of": wanted.digest, "attempt": "earlier", "seconds": 1.0, "architecture": architecture(provenance())}
    forged = ObjectStore(backend.objects_root).put(Output(wrong, said | {"document": {"step": 1000}}))
    backend.submit_resumable("misled", wanted, {}, frozenset(), forged.digest)
    assert first(backend, "finished").result == result


def test_there_are_never_more_workers_than_allowed_nor_than_work(tmp_path: Path) -> None:
    with Embedded(tmp_path / "objects", workers=3) as backend:
        backend.submit("a", task("add", terms=[1.0]), {})
        assert len(workers()) == 1
        for number in range(5):
            backend.submit(f"b{number}", task("add", terms=[1.0]), {})
        assert len(workers()) == 3


def test_by_default_workers_fill_the_usable_cores(tmp_path: Path) -> None:
    assert Embedded(tmp_path).nodes()[0].workers == usable_cores()
    assert Embedded(tmp_path, threads_per_worker=10_000).nodes()[0].workers == 1
    with pytest.raises(BackendError, match="at least one worker"):
        Embedded(tmp_path, workers=0)


def test_the_first_progress_comes_soon(tmp_path: Path, backend: Embedded) -> None:
    taken = []
    for number in range(3):  # the fastest of three: how long it takes, not how busy the machine is
        start = time.perf_counter()
        backend.submit(f"a{number}", task("iterate", steps=FOREVER), {})
        first(backend, "progress")
        taken.append(time.perf_counter() - start)
        backend.cancel(f"a{number}")  # the next one starts a new process
    assert min(taken) < WARM_START_S


def test_a_worker_killed_from_outside_is_lost_at_once_and_replaced(backend: Embedded) -> None:
    backend.submit("a", task("iterate", steps=FOREVER), {})
    worker = first(backend, "progress").worker
    workers()[0].kill()
    lost = first(backend, "lost")
    assert (lost.attempt, lost.worker) == ("a", worker)
    assert "SIGKILL" in lost.reason
    backend.submit("b", task("add", terms=[1.0]), {})
    assert first(backend, "finished").worker != worker


def test_the_last_words_of_a_lost_worker_are_told(backend: Embedded) -> None:
    backend.submit("a", task("crash"), {})
    assert "about to be killed" in first(backend, "lost").reason


def test_a_death_is_noticed_although_a_child_of_the_worker_lives_and_the_child_ends_too(backend: Embedded) -> None:
    backend.submit("a", task("fork", steps=FOREVER), {})
    told = first(backend, "progress").progress
    assert told is not None
    child = os.pidfd_open(int(told.simulated))
    workers()[0].kill()
    assert first(backend, "lost").attempt == "a"
    assert select.select([child], [], [], DYING_S)[0] == [child]
    os.close(child)


def test_an_interrupt_is_not_for_the_workers(backend: Embedded, tmp_path: Path) -> None:
    wanted = task("iterate", steps=20_000, gate=str(tmp_path / "gate"))
    backend.submit("a", wanted, {})
    first(backend, "progress")
    workers()[0].send_signal(signal.SIGINT)
    let_through([wanted])
    assert first(backend, "finished").attempt == "a"


def test_workers_lead_groups_of_their_own(backend: Embedded) -> None:
    backend.submit("a", task("add", terms=[1.0]), {})
    assert os.getpgid(workers()[0].pid) == workers()[0].pid


def test_workers_that_cannot_start_are_given_up_with_what_they_said(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file where a folder should be")
    with Embedded(tmp_path / "objects", workers=2) as backend:
        backend.submit("a", task("add", terms=[1.0]), {})
        with pytest.raises(BackendError, match="3 workers in a row ended before their first task") as caught:
            list(backend.events())
    assert "ended with status 1" in str(caught.value)
    assert "cannot be written" in str(caught.value)
    assert workers() == []


def test_a_stopped_worker_goes_on_where_it_was(backend: Embedded, tmp_path: Path) -> None:
    wanted = task("iterate", steps=20_000, gate=str(tmp_path / "gate"))
    backend.submit("a", wanted, {})
    first(backend, "progress")
    worker = workers()[0]
    worker.suspend()
    assert {event.kind for event in backend.events(timeout=0.3)} <= {"progress"}  # told before it stopped
    assert list(backend.events(timeout=0.3)) == []
    worker.resume()
    let_through([wanted])
    assert first(backend, "finished").attempt == "a"


def test_a_cancelled_task_stops_computing(backend: Embedded) -> None:
    backend.submit("a", task("hold"), {})
    told = first(backend, "progress").progress
    assert told is not None
    worker = psutil.Process(int(told.simulated))
    backend.cancel("a")
    assert not worker.is_running()
    assert list(backend.events()) == []


def test_files_where_the_user_is_are_not_taken_for_modules(
    backend: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    backend.submit("a", task("add", terms=[1.0]), {})
    assert first(backend, "finished").attempt == "a"


def refusal(backend: Embedded, descriptors: int) -> str:
    """What submitting says where only so many more files can be opened, empty where that is enough."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + descriptors, allowed[1]))
    try:
        backend.submit("a", task("add", terms=[1.0]), {})
    except BackendError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    return ""


def test_a_worker_that_the_system_refuses_is_explained_and_leaves_nothing(backend: Embedded) -> None:
    opened = os.listdir("/proc/self/fd")
    enough = 0
    while said := refusal(backend, enough):  # at the socket, the log, the pipes, the process itself
        assert "Worker 1 of 1 cannot be started" in said
        assert "Ask for fewer workers" in said
        assert os.listdir("/proc/self/fd") == opened
        assert workers() == []
        enough += 1
    assert 3 < enough < 20
    assert list(backend.events())[-1].kind == "finished"


def test_a_worker_that_dies_before_it_reads_its_order_is_lost_like_any_other(backend: Embedded) -> None:
    backend.submit("a", task("add", terms=[1.0]), {})
    assert first(backend, "finished").attempt == "a"
    (worker,) = workers()
    worker.suspend()
    backend.submit("b", task("add", terms=[2.0]), {})  # handed over, and never read: the line breaks, it does not end
    assert first(backend, "started").attempt == "b"
    worker.kill()
    assert first(backend, "lost").attempt == "b"
    backend.submit("c", task("add", terms=[3.0]), {})
    assert first(backend, "finished").attempt == "c"


def test_an_attempt_may_be_cancelled_while_its_end_waits_to_be_heard(tmp_path: Path, backend: Embedded) -> None:
    with Embedded(tmp_path / "objects", workers=2) as both:
        for attempt in ("a", "b"):
            both.submit(attempt, task("iterate", steps=FOREVER), {})
        started = (event for event in both.events() if event.kind == "started")
        assert {next(started).attempt, next(started).attempt} == {"a", "b"}
        for worker in workers():
            descriptor = os.pidfd_open(worker.pid)
            worker.kill()
            assert select.select([descriptor], [], [], DYING_S)[0]
            os.close(descriptor)
        lost = []
        for event in both.events():
            if event.kind == "lost":
                lost.append(event.attempt)
                both.cancel({"a": "b", "b": "a"}[event.attempt])
        assert len(lost) == 1
