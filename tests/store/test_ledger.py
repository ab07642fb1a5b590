"""The ledger: claims, fences, histories, what it tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import update

from manybody.core.errors import InputError, StoreError
from manybody.core.study import Study
from manybody.core.task import Task
from manybody.store.claims import LEASE_S
from manybody.store.ledger import Ledger
from manybody.store.schema import runs
from manybody.testing.postgres import PostgresServer

RESULT = "f" * 64
VERSIONS = {"python": "3.11", "cores": 2}


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty ledger, on each database."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    server: PostgresServer = request.getfixturevalue("server")
    return server.ledger()


def another_run(ledger: Ledger, study: Study, tasks: list[Task]) -> int:
    run = ledger.begin_run(study.digest, Path("elsewhere"), "manybody run", VERSIONS)
    ledger.add_tasks(run, tasks)
    return run


def run_of_another_process(where: str, study: Study, wanted: Task) -> tuple[subprocess.Popen[str], int]:
    """A process that claims a task and then waits; and its run."""
    code = (
        "import sys; from pathlib import Path; from manybody.store.ledger import Ledger; ledger = Ledger(sys.argv[1]);"
        "run = ledger.begin_run(sys.argv[2], Path('out'), 'other', {});"
        "print(run, ledger.claim(run, sys.argv[3]).state, flush=True); input()"
    )
    arguments = [sys.executable, "-c", code, where, study.digest, wanted.digest]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run, state = process.stdout.readline().split()
    assert state == "mine"
    return process, int(run)


def test_a_task_is_claimed_finished_and_then_done(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    claim = ledger.claim(run, tasks[0].digest)
    assert (claim.state, claim.result, claim.holder) == ("mine", "", "")
    assert ledger.finish(claim.attempt, RESULT, 120, 0.5, "local-1-1", VERSIONS)
    assert ledger.claim(run, tasks[0].digest).state == "done"
    assert ledger.claim(run, tasks[0].digest).result == RESULT
    row = ledger.result(tasks[0].digest)
    assert row is not None
    assert (row.result, row.nbytes, row.seconds, row.worker, row.attempt) == (RESULT, 120, 0.5, "local-1-1", claim.attempt)
    assert row.provenance == VERSIONS
    assert ledger.result(tasks[1].digest) is None


def test_a_live_run_holds_what_it_claimed_and_its_end_frees_it(ledger: Ledger, run: int, study: Study, tasks: list[Task]) -> None:
    other = another_run(ledger, study, tasks)
    mine = ledger.claim(run, tasks[0].digest)
    held = ledger.claim(other, tasks[0].digest)
    assert held.state == "held"
    assert f"run {run} " in held.holder
    assert str(os.getpid()) in held.holder
    ledger.end_run(run, "interrupted", None, None)
    assert ledger.claim(other, tasks[0].digest).state == "mine"
    assert not ledger.finish(mine.attempt, RESULT, 1, 1.0, "late", VERSIONS)
    assert [(row.state, row.number) for row in ledger.attempts(tasks[0].digest)] == [("lost", 1), ("running", 2)]


def test_only_the_current_attempt_may_finish_and_only_once(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    first = ledger.claim(run, tasks[0].digest).attempt
    second = ledger.claim(run, tasks[0].digest).attempt  # the same run asks again: it has given up on the first
    assert not ledger.finish(first, "a" * 64, 1, 1.0, "late", VERSIONS)
    assert ledger.result(tasks[0].digest) is None
    assert ledger.finish(second, RESULT, 1, 1.0, "w", VERSIONS)
    assert not ledger.finish(second, "b" * 64, 1, 1.0, "replayed", VERSIONS)
    assert not ledger.finish("unknown", RESULT, 1, 1.0, "w", VERSIONS)
    assert not ledger.fail(second, "too late")
    assert [row.result for row in ledger.history(tasks[0].digest)] == [RESULT]


@pytest.mark.parametrize("end", ["fail", "lose"])
def test_a_failed_or_lost_attempt_is_kept_and_the_task_can_be_tried_again(
    ledger: Ledger, run: int, tasks: list[Task], end: str
) -> None:
    attempt = ledger.claim(run, tasks[0].digest).attempt
    assert getattr(ledger, end)(attempt, "a reason", worker="local-1-1")
    again = ledger.claim(run, tasks[0].digest)
    assert again.state == "mine"
    assert again.attempt != attempt
    first = ledger.attempts(tasks[0].digest)[0]
    assert (first.state, first.reason, first.worker) == ({"fail": "failed", "lose": "lost"}[end], "a reason", "local-1-1")
    assert first.ended is not None


def test_a_killed_run_holds_nothing_at_once(where: str, ledger: Ledger, run: int, study: Study, tasks: list[Task]) -> None:
    process, other = run_of_another_process(where, study, tasks[0])
    with process:
        assert ledger.claim(run, tasks[0].digest).state == "held"
        process.kill()
    assert ledger.claim(run, tasks[0].digest).state == "mine"
    lost = ledger.attempts(tasks[0].digest)[0]
    assert (lost.run, lost.state, lost.reason) == (other, "lost", f"run {other} is gone")


def test_a_stopped_run_on_this_machine_keeps_its_claims(
    where: str, ledger: Ledger, run: int, study: Study, tasks: list[Task]
) -> None:
    process, other = run_of_another_process(where, study, tasks[0])
    with process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        silent = update(runs).where(runs.c.id == other).values(heartbeat=time.time() - 10 * LEASE_S)
        with ledger.database.writing() as connection:
            connection.execute(silent)
        assert ledger.claim(run, tasks[0].digest).state == "held"
        process.kill()


def test_on_another_machine_the_heartbeat_decides(ledger: Ledger, run: int, study: Study, tasks: list[Task]) -> None:
    other = another_run(ledger, study, tasks)
    with ledger.database.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == other).values(machine="another-machine", host="far"))
    ledger.claim(other, tasks[0].digest)
    ledger.claim(other, tasks[1].digest)
    assert "on far" in ledger.claim(run, tasks[0].digest).holder
    with ledger.database.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == other).values(heartbeat=time.time() - LEASE_S - 1))
    assert ledger.claim(run, tasks[0].digest).state == "mine"
    assert not ledger.run(other).alive
    ledger.heartbeat(other)
    assert ledger.run(other).alive
    assert ledger.claim(run, tasks[1].digest).state == "held"


def test_of_many_processes_that_claim_the_same_tasks_each_task_goes_to_one(where: str, ledger: Ledger, run: int) -> None:
    wanted = [Task(method="m", stage="s", version="1", system={}, parameters={"n": n}) for n in range(40)]
    ledger.add_tasks(run, wanted)
    code = (
        "import sys; from pathlib import Path; from manybody.store.ledger import Ledger; ledger = Ledger(sys.argv[1]);"
        "run = ledger.begin_run(ledger.studies()[0].digest, Path('out'), 'other', {}); print('ready', flush=True); input();"
        "claims = [ledger.claim(run, task) for task in sys.argv[2:]];"
        "print(*(ledger.finish(claim.attempt, 'f' * 64, 1, 1.0, 'w', {}) for claim in claims if claim.state == 'mine'))"
    )
    arguments = [sys.executable, "-c", code, where, *(task.digest for task in wanted)]
    several = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in several:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in several:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    finished = " ".join(process.communicate()[0] for process in several).split()
    assert finished == ["True"] * len(wanted)
    for task in wanted:
        assert [row.state for row in ledger.attempts(task.digest)] == ["finished"]
        assert len(ledger.history(task.digest)) == 1


def test_a_finish_and_a_claim_of_a_dead_run_at_the_same_time_compute_nothing_twice(
    where: str, ledger: Ledger, run: int, study: Study, tasks: list[Task]
) -> None:
    process, _ = run_of_another_process(where, study, tasks[0])
    with process:
        process.kill()
    late = ledger.attempts(tasks[0].digest)[0].id  # of a dead run: one side finishes it, the other claims its task
    with ThreadPoolExecutor(2) as both:
        counted = both.submit(ledger.finish, late, RESULT, 1, 1.0, "w", VERSIONS)
        claim = both.submit(ledger.claim, run, tasks[0].digest)
    assert counted.result() == (claim.result().state == "done")
    states = [row.state for row in ledger.attempts(tasks[0].digest)]
    assert states == (["finished"] if counted.result() else ["lost", "running"])


def test_the_checkpoint_of_a_task_goes_to_its_next_attempt_and_ends_with_the_task(
    ledger: Ledger, run: int, study: Study, tasks: list[Task]
) -> None:
    task = tasks[0].digest
    first = ledger.claim(run, task)
    assert first.checkpoint == ""
    assert ledger.keep_checkpoint(first.attempt, "a" * 64, 10, 0.25, "w1")
    assert ledger.keep_checkpoint(first.attempt, "b" * 64, 20, 0.5, "w1")
    kept = ledger.checkpoint(task)
    assert kept is not None
    assert (kept.digest, kept.nbytes, kept.fraction, kept.attempt, kept.worker) == ("b" * 64, 20, 0.5, first.attempt, "w1")
    assert ledger.is_needed("b" * 64)
    assert not ledger.is_needed("a" * 64)
    second = ledger.claim(run, task)
    assert second.checkpoint == "b" * 64
    assert not ledger.keep_checkpoint(first.attempt, "c" * 64, 10, 0.75, "late")  # fenced off
    assert not ledger.keep_checkpoint("unknown", "c" * 64, 10, 0.75, "late")
    assert ledger.claim(run, tasks[1].digest).checkpoint == ""
    assert ledger.finish(second.attempt, RESULT, 1, 1.0, "w", VERSIONS)
    assert ledger.checkpoint(task) is None
    assert not ledger.is_needed("b" * 64)
    assert ledger.is_needed(RESULT)


@pytest.mark.parametrize(
    ("versions", "goes_on"),
    [({"python": "3.11"}, True), ({"python": "3.11", "host": "b", "cores": 8}, True), ({"python": "3.12"}, False)],
    ids=["same", "another host", "another version"],
)
def test_a_run_goes_on_only_from_what_gives_the_same_bits_as_its_own_versions(
    ledger: Ledger, run: int, study: Study, tasks: list[Task], versions: dict[str, str], goes_on: bool
) -> None:
    first = ledger.claim(run, tasks[0].digest).attempt
    ledger.keep_checkpoint(first, "a" * 64, 10, 0.25, "w1")
    ledger.lose(first, "killed")
    other = ledger.begin_run(study.digest, Path("elsewhere"), "manybody run", versions)
    ledger.add_tasks(other, tasks)
    assert ledger.claim(other, tasks[0].digest).checkpoint == ("a" * 64 if goes_on else "")


def test_a_withdrawn_task_and_one_whose_checkpoint_is_forgotten_begin_anew(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    for task in tasks[:2]:
        ledger.keep_checkpoint(ledger.claim(run, task.digest).attempt, "a" * 64, 10, 0.25, "w1")
        ledger.forget_checkpoint(task.digest, "b" * 64)  # another one: it stays
        assert ledger.claim(run, task.digest).checkpoint == "a" * 64
    ledger.forget_checkpoint(tasks[0].digest, "a" * 64)
    ledger.withdraw(tasks[1].digest, "computed afresh on request")
    assert [ledger.claim(run, task.digest).checkpoint for task in tasks[:2]] == ["", ""]


def test_a_withdrawn_result_is_computed_again_and_kept_as_history(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    ledger.finish(ledger.claim(run, tasks[0].digest).attempt, "a" * 64, 1, 1.0, "w", VERSIONS)
    assert ledger.withdraw(tasks[0].digest, "its bytes are corrupt")
    assert not ledger.withdraw(tasks[0].digest, "again")
    assert ledger.result(tasks[0].digest) is None
    claim = ledger.claim(run, tasks[0].digest)
    assert claim.state == "mine"
    ledger.finish(claim.attempt, RESULT, 1, 1.0, "w", VERSIONS)
    history = ledger.history(tasks[0].digest)
    assert [(row.result, row.reason, row.withdrawn is None) for row in history] == [
        ("a" * 64, "its bytes are corrupt", False),
        (RESULT, "", True),
    ]


def test_tasks_of_a_run_are_told_in_order_with_their_state(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    done, failed, _, lost = (ledger.claim(run, task.digest).attempt for task in tasks[:4])
    ledger.finish(done, RESULT, 1, 0.25, "w1", VERSIONS)
    ledger.fail(failed, "diverged")
    ledger.lose(lost, "killed")
    rows = ledger.tasks(run)
    assert [row.task for row in rows] == tasks  # with their costs
    assert [row.state for row in rows] == ["finished", "failed", "running", "waiting", "waiting"]
    assert [row.attempts for row in rows] == [1, 1, 1, 1, 0]
    assert (rows[0].result, rows[0].worker, rows[0].seconds, rows[1].reason) == (RESULT, "w1", 0.25, "diverged")
    ledger.claim(run, tasks[1].digest)
    assert [(row.state, row.attempts) for row in ledger.tasks(run)][1] == ("running", 2)


def test_recording_again_changes_nothing(ledger: Ledger, run: int, study: Study, tasks: list[Task]) -> None:
    ledger.record_study(study)
    ledger.add_tasks(run, tasks)
    assert len(ledger.studies()) == 1
    assert [row.task.digest for row in ledger.tasks(run)] == [task.digest for task in tasks]


def test_studies_and_runs_are_told(ledger: Ledger, run: int, study: Study, tasks: list[Task], tmp_path: Path) -> None:
    other = another_run(ledger, study, tasks)
    ledger.end_run(run, "holds", tmp_path / "certificate.json", tmp_path / "report.html")
    assert [row.id for row in ledger.runs()] == [other, run]
    assert ledger.runs(study.digest) == ledger.runs()
    assert ledger.runs("0" * 64) == []
    told = ledger.run(run)
    assert (told.study, told.name, told.out, told.command) == (study.digest, study.name, tmp_path / "out", "manybody run")
    assert (told.verdict, told.certificate, told.report) == ("holds", tmp_path / "certificate.json", tmp_path / "report.html")
    assert told.provenance == {"python": "3.11"}
    assert not told.alive
    assert ledger.run(other).alive
    assert ledger.run(other).certificate is None
    recorded = ledger.studies()[0]
    assert (recorded.digest, recorded.runs) == (study.digest, 2)
    assert Study.model_validate(recorded.document) == study


def test_a_task_is_found_by_the_first_digits_of_its_digest(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    assert ledger.task(tasks[3].digest[:12]) == tasks[3]
    with pytest.raises(InputError, match="more than one"):
        ledger.task("")
    with pytest.raises(InputError, match="none"):
        ledger.task("zz%")
    with pytest.raises(InputError, match="manybody show"):
        ledger.run(999)


def test_unknown_tasks_and_studies_are_refused(ledger: Ledger, run: int) -> None:
    with pytest.raises(StoreError, match="no task"):
        ledger.claim(run, "0" * 64)
    with pytest.raises(StoreError, match=r"(?i)foreign key"):
        ledger.begin_run("0" * 64, Path("out"), "", {})
    assert len(ledger.runs()) == 1


def test_what_is_written_is_there_for_the_next_process(where: str, ledger: Ledger, run: int, tasks: list[Task]) -> None:
    attempt = ledger.claim(run, tasks[0].digest).attempt
    ledger.finish(attempt, RESULT, 1, 1.0, "w", VERSIONS)
    for address in (where, where.replace("+psycopg", "") if "://" in where else f"sqlite:///{where}"):
        again = Ledger(address)
        row = again.result(tasks[0].digest)
        assert row is not None
        assert row.result == RESULT
        again.close()


def test_ten_thousand_tasks_are_recorded_together(ledger: Ledger, study: Study, tmp_path: Path) -> None:
    run = ledger.begin_run(study.digest, tmp_path, "", {})
    many = [Task(method="m", stage="s", version="1", system={}, parameters={"n": n}) for n in range(10_000)]
    start = time.perf_counter()
    ledger.add_tasks(run, many)
    assert time.perf_counter() - start < 10.0  # 0.4 s when nothing else runs; one transaction a task takes 12 s and more
    assert [row.task.digest for row in ledger.tasks(run)] == [task.digest for task in many]
