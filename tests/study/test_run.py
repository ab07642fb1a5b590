"""Runs of a real study by real workers: resumed, changed, killed, doubled, over budget, failing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manybody.core.errors import TaskError
from manybody.core.protocols import Event
from manybody.core.study import Study
from manybody.store.home import Home
from manybody.study.conduct import BudgetError
from manybody.study.expand import expand
from manybody.study.run import Outcome, RunOptions, run_study

SMALL: dict[str, Any] = {
    "name": "small-liquid",
    "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776, "atoms": 108, "cutoff": 2.5},
    "method": {"name": "molecular-dynamics", "equilibration": 4.0, "duration": 8.0, "segment": 2.0},
    "sweep": [{"system.density": 0.776}, {"system.density": 0.82, "system.temperature": 0.9}],
    "repeats": 2,
    "measures": ["potential-energy", "pressure"],
    "checks": ["conservation", "convergence", "replication"],
    "seed": 11,
}


class Silent:
    def planned(self, *told: object) -> None: ...

    def event(self, *told: object) -> None: ...

    def judged(self, *told: object) -> None: ...


def small(**changes: Any) -> Study:
    return Study.model_validate(SMALL | changes)


def run(study: Study, place: Path, **options: Any) -> Outcome:
    return run_study(study, RunOptions(home=place / "home", out=place / "out", **options), Silent())


def results(study: Study, place: Path) -> dict[str, str]:
    """The digest of every task's result; equal digests are equal bits."""
    with closing(Home(place / "home").ledger()) as ledger:
        rows = {task.digest: ledger.result(task.digest) for task in expand(study).tasks}
    return {digest: row.result for digest, row in rows.items() if row is not None}


def times_finished(study: Study, place: Path) -> list[int]:
    """How often each task was computed to its end, from the ledger."""
    with closing(Home(place / "home").ledger()) as ledger:
        return [sum(attempt.state == "finished" for attempt in ledger.attempts(task.digest)) for task in expand(study).tasks]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of a run that nobody disturbed."""
    place = tmp_path_factory.mktemp("quiet")
    outcome = run(small(), place)
    assert outcome.tally.computed == outcome.tally.total == len(expand(small()).tasks)
    return place


def test_run_again_computes_nothing_and_finds_the_same(quiet: Path) -> None:
    before = (quiet / "out" / "certificate.json").read_text()
    outcome = run(small(), quiet)
    assert outcome.tally.computed == 0
    assert outcome.tally.cached == outcome.tally.total
    assert (quiet / "out" / "certificate.json").read_text() == before
    assert set(times_finished(small(), quiet)) == {1}


def test_a_change_computes_only_what_it_touches(quiet: Path) -> None:
    """At T = 0.9 for the first point, the second (its own T = 0.9) is untouched; replicas are drawn anew."""
    hotter = small(system=SMALL["system"] | {"temperature": 0.9})
    outcome = run(hotter, quiet)
    untouched = [task for run in expand(small()).realisations if run.point.index == 1 for task in run.tasks]
    assert outcome.tally.cached >= len(untouched)
    assert outcome.tally.computed <= outcome.tally.total - len(untouched)
    assert set(times_finished(hotter, quiet)) == {1}


def test_a_longer_study_reuses_a_shorter_ones_work(quiet: Path) -> None:
    outcome = run(small(scale=1.5), quiet)
    dynamics = [task for run in expand(small()).realisations for task in run.tasks]
    assert outcome.tally.cached >= len(dynamics)


def test_fresh_computes_everything_again_to_the_same_bits(tmp_path: Path, quiet: Path) -> None:
    study = small(sweep=[{}], repeats=1)
    first = run(study, tmp_path)
    before = results(study, tmp_path)
    again = run(study, tmp_path, fresh=True)
    assert again.tally.computed == first.tally.total
    assert results(study, tmp_path) == before


SCRIPT = """
import sys
from pathlib import Path
from manybody.core.study import Study
from manybody.study.run import RunOptions, run_study

class Talking:
    def planned(self, *told): pass
    def event(self, event, task, tally, left):
        if event.kind == "finished":
            print(tally.computed, flush=True)
    def judged(self, *told): pass

if __name__ == "__main__":
    place = Path(sys.argv[1])
    study = Study.model_validate_json(sys.stdin.read())
    outcome = run_study(study, RunOptions(home=place / "home", out=place / "out"), Talking())
    print("computed", outcome.tally.computed, flush=True)
"""


def start(study: Study, place: Path) -> subprocess.Popen[str]:
    """A run in a process of its own, with a line of output for each finished task."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(place)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(study.model_dump_json())
    process.stdin.close()
    process.stdin = None  # so that `communicate` does not flush it
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_and_run_again_gives_the_same_bits(tmp_path: Path, quiet: Path, how: signal.Signals) -> None:
    for finished in (2, 7):
        process = start(small(), tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= finished:
                break
        process.send_signal(how)
        process.stdout.read()
        assert process.wait(timeout=60) != 0
        assert process.stderr is not None
        process.stderr.close()
        process.stdout.close()
    kept = len(results(small(), tmp_path))
    assert kept >= 7
    outcome = run(small(), tmp_path)
    assert outcome.tally.computed == outcome.tally.total - kept
    assert results(small(), tmp_path) == results(small(), quiet)
    assert set(times_finished(small(), tmp_path)) == {1}


def test_two_runs_at_once_share_the_work(tmp_path: Path, quiet: Path) -> None:
    processes = [start(small(), tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    computed = [int(out.split()[-1]) for out, _ in outputs]
    assert sum(computed) == len(expand(small()).tasks)
    assert results(small(), tmp_path) == results(small(), quiet)
    assert set(times_finished(small(), tmp_path)) == {1}


def test_a_result_that_rots_during_the_run_is_computed_again(tmp_path: Path, quiet: Path) -> None:
    objects = Home(tmp_path / "home").objects
    rotten: list[str] = []

    class Rot(Silent):
        def event(self, event: Event, *told: object) -> None:
            if event.kind == "finished" and not rotten:
                rotten.append(event.task)
                path = objects.path(event.result)
                path.chmod(0o644)
                path.write_bytes(path.read_bytes()[:-1])

    study = small(sweep=[{}], repeats=1)
    run_study(study, RunOptions(home=tmp_path / "home", out=tmp_path / "out", workers=1), Rot())
    with closing(Home(tmp_path / "home").ledger()) as ledger:
        assert [row.withdrawn is None for row in ledger.history(rotten[0])] == [False, True]
    known = results(small(), quiet)
    assert all(known[digest] == result for digest, result in results(study, tmp_path).items() if digest in known)


def test_a_budget_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    study = small(budget={"wall_time_s": 0.5}, method=SMALL["method"] | {"duration": 2000.0})
    begin = time.monotonic()
    with pytest.raises(BudgetError, match=r"done and kept\. Run again to go on, or raise `budget\.wall_time`"):
        run(study, tmp_path)
    assert time.monotonic() - begin < 60


def test_a_task_that_fails_names_the_cause_and_the_rest_is_done(tmp_path: Path) -> None:
    """At a temperature of 10^5 an atom crosses half the box in a step: the run explodes and says so."""
    study = small(sweep=[{}, {"system.temperature": 1e5}], repeats=1)
    with pytest.raises(TaskError, match=r"(?s)1 of \d+ tasks failed.*exploded.*time_step"):
        run(study, tmp_path)
    healthy = [task for run in expand(study).realisations if run.point.index == 0 for task in run.tasks]
    assert {task.digest for task in healthy} <= set(results(study, tmp_path))
