"""kill -9 of a worker and of the process that conducts: nothing goes on, nothing is half-written, nothing is done twice."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from manybody.core.random import Key
from manybody.core.task import Task
from manybody.testing.methods import task

FOREVER = 10**12  # steps
DYING_S = 10.0  # a killed process is gone in milliseconds; this is for a machine that has other things to do


def assert_gone(processes: list[psutil.Process]) -> None:
    """Every process ends by itself, soon."""
    for process in processes:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        assert select.select([descriptor], [], [], DYING_S)[0], f"{process} goes on"
        os.close(descriptor)


def several(count: int, nbytes: int) -> list[Task]:
    return [task("fill", nbytes=nbytes).model_copy(update={"repeat": number}) for number in range(count)]


@pytest.mark.parametrize("stage", ["iterate", "fork", "hold"])
def test_nothing_computes_on_for_a_killed_conductor(site: Any, stage: str) -> None:
    conductor = site.start([task(stage, steps=FOREVER)])
    conductor.until("progress")
    family = psutil.Process(conductor.process.pid).children(recursive=True)
    assert len(family) == (2 if stage == "fork" else 1)
    conductor.kill()
    assert_gone(family)


def test_a_worker_that_is_only_starting_ends_with_its_conductor_too(site: Any) -> None:
    code = (
        "import sys, pathlib, psutil; from manybody.network.local import Embedded; from manybody.testing.methods import task;"
        "Embedded(pathlib.Path(sys.argv[1]), workers=1).submit('a', task('add', terms=[1.0]), {});"
        "print(psutil.Process().children()[0].pid, flush=True); input()"
    )
    arguments = [sys.executable, "-c", code, str(site.home.path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout is not None
        worker = psutil.Process(int(conductor.stdout.readline()))
        conductor.kill()
    assert_gone([worker])


def test_what_a_killed_conductor_had_finished_counts_and_the_rest_is_free_at_once(site: Any) -> None:
    quick, endless = several(6, 1000), task("iterate", steps=FOREVER)
    conductor = site.start([*quick, endless])
    for _ in quick:
        conductor.until("finished")
    conductor.until("progress")  # it records a result before it tells what comes next
    conductor.kill()
    ledger = site.home.ledger()
    assert not ledger.runs()[0].alive
    run = ledger.begin_run(ledger.studies()[0].digest, site.home.path, "again", {})
    assert [ledger.claim(run, done.digest).state for done in quick] == ["done"] * 6
    assert ledger.claim(run, endless.digest).state == "mine"
    assert [(row.state, row.reason) for row in ledger.attempts(endless.digest)] == [("lost", "run 1 is gone"), ("running", "")]
    ledger.close()


@pytest.mark.fault(
    "kill -9 of the run",
    on="embedded",
    happens="its workers end with it; the next run computes what is not in the ledger",
    kept="every recorded result; one result a task, none half-written",
)
def test_started_again_after_kills_at_any_instant_nothing_is_lost_or_counted_twice(site: Any) -> None:
    tasks = several(24, 3_000_000)  # more work than is done between the kills, also where this process is starved
    instants = Key.from_seed(7, "kills").generator().uniform(0.0, 0.15, 4)
    for instant in instants:
        conductor = site.start(tasks)
        conductor.until("started")
        select.select([], [], [], instant)  # a random instant is the point here, nothing is awaited
        conductor.kill()
        site.assert_intact()
    conductor = site.start(tasks)
    end = conductor.until("end")
    assert end["computed"] + end["cached"] == len(tasks)
    site.assert_intact()
    ledger = site.home.ledger()
    for done in tasks:
        assert len(ledger.history(done.digest)) == 1
        assert [row.state for row in ledger.attempts(done.digest)].count("finished") == 1
        assert site.home.objects.has(ledger.result(done.digest).result)
    ledger.close()
    assert list(site.home.objects.incoming.iterdir()) == []


@pytest.mark.fault(
    "kill -9 of a worker",
    on="embedded",
    happens="its attempt is lost at once, with the signal as the reason; a fresh worker takes its place",
    kept="all but what that worker was computing",
)
def test_a_killed_worker_costs_one_attempt(site: Any) -> None:
    conductor = site.start([task("iterate", steps=FOREVER), task("add", terms=[1.0])], workers=2)
    conductor.until("progress")
    start = time.monotonic()
    for worker in psutil.Process(conductor.process.pid).children():
        worker.kill()
    assert "SIGKILL" in conductor.until("lost")["reason"]
    assert time.monotonic() - start < DYING_S
