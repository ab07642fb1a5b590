"""A federation with one node slowed twenty times: the study ends with the right digests, and the slow node's task elsewhere."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from manybody.core.digest import digest_bytes
from manybody.core.protocols import Event
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Progress, Task
from manybody.store.encoding import encode
from manybody.store.provenance import provenance
from manybody.study.conduct import Conductor
from manybody.study.stragglers import watched
from manybody.testing.federation import Process, Town
from manybody.testing.methods import installed, iterate, task

STUDY = Study.model_validate(
    {
        "name": "slow-node",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
SHARE, PERIOD_S = 0.05, 0.4  # a twentieth of the time, in turns that are short beside a task


class Nowhere:
    """A context for a task that is computed here, to know what must come out."""

    device, threads = "cpu", 1

    def progress(self, progress: Progress) -> None: ...

    def resume(self) -> None:
        return None

    def keep(self, output: Output) -> None: ...


@contextmanager
def slowed(node: Process) -> Iterator[None]:
    """Let the processes that compute for a node run for a share of the time only; the node itself goes on as ever."""
    over = threading.Event()

    def send(number: signal.Signals) -> None:
        for worker in psutil.Process(node.pid).children():
            try:
                os.kill(worker.pid, number)
            except ProcessLookupError:  # its attempt was cancelled this moment
                continue

    def throttle() -> None:
        while not over.wait(SHARE * PERIOD_S):
            send(signal.SIGSTOP)
            over.wait((1 - SHARE) * PERIOD_S)
            send(signal.SIGCONT)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def expected(wanted: Task) -> str:
    return digest_bytes(encode(iterate(wanted, {}, Nowhere())))


@pytest.mark.fault(
    "a node that is 10 times slower",
    on="federation",
    happens="slowed 20 times: its task is tried on a faster node as well, and what comes first counts",
    kept="the right digests; one result a task",
)
def test_a_slow_node_does_not_hold_up_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    tasks = [task("iterate", steps=6_000_000).model_copy(update={"repeat": repeat}) for repeat in range(5)]
    plan = Plan(STUDY, (), (tuple(tasks),))
    slow_began: set[str] = set()
    ended_by: dict[str, str] = {}

    def watch(event: Event) -> None:
        node = event.worker.partition("/")[0]
        if event.kind == "started" and node == "slow":
            slow_began.add(event.task)
        elif event.kind == "finished":
            ended_by[event.task] = node

    with Town(tmp_path) as town:
        town.add_nodes("fast", "slow")
        with slowed(town.nodes["slow"]), closing(town.home.ledger()) as ledger, closing(watched(town.backend())) as backend:
            ledger.record_study(STUDY)
            run = ledger.begin_run(STUDY.digest, tmp_path / "out", "conduct", provenance())
            ledger.add_tasks(run, plan.tasks)
            conductor = Conductor(plan, run, ledger, town.home.objects, backend)
            conductor.conduct(lambda event, *_: watch(event))
            rows = {each.digest: ledger.history(each.digest) for each in tasks}
    assert {digest: [row.result for row in found] for digest, found in rows.items()} == {
        each.digest: [expected(each)] for each in tasks
    }
    assert slow_began
    assert any(ended_by[digest] == "fast" for digest in slow_began), "its task was not done elsewhere"
