"""Audits in the ledger: what is decided stays, records are sums over it, and faults weigh more than agreements."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybody.core.errors import StoreError
from manybody.core.task import Task
from manybody.store import audits
from manybody.store.audits import Audit, Standing
from manybody.store.home import Home
from manybody.store.ledger import Ledger


def finish(ledger: Ledger, run: int, task: Task, node: str, refused: str = "", **decided: object) -> str:
    """A result of a node with what was decided on it; its attempt."""
    attempt = ledger.claim(run, task.digest).attempt
    audit = Audit(attempt, task.replicated(0).digest, node, 0.5, True, **decided)  # type: ignore[arg-type]
    about = (attempt, f"{attempt[:32]:0<64}", 8, 1.0, f"{node}/1", {"host": "here"})
    assert ledger.finish(*about, inputs={"state": "f" * 64}, audit=audit, refused=refused)
    return attempt


def standings(ledger: Ledger) -> dict[str, Standing]:
    with ledger.database.reading() as connection:
        return audits.standings(connection)


def judge(ledger: Ledger, attempts: list[str], verdict: str, study: str = "study") -> None:
    with ledger.database.writing() as connection:
        audits.judge(connection, attempts, verdict, study, "bits")


def test_a_record_is_what_was_found_right_since_the_last_fault(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    first, second, third, fourth = (finish(ledger, run, task, "a") for task in tasks[:4])
    judge(ledger, [first, second], "agreed")
    assert standings(ledger) == {"a": Standing(4, 2, 0)}
    judge(ledger, [third], "caught")
    assert standings(ledger) == {"a": Standing(4, 0, 1)}
    judge(ledger, [fourth], "agreed", "another study")
    assert standings(ledger) == {"a": Standing(4, 1, 1)}
    with ledger.database.reading() as connection:
        assert audits.caught(connection, "study") == {"a"}
        assert audits.caught(connection, "another study") == set()


def test_judging_twice_counts_once_and_no_agreement_undoes_a_fault(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    attempt = finish(ledger, run, tasks[0], "a")
    for _ in range(2):
        judge(ledger, [attempt], "agreed")
    assert standings(ledger)["a"] == Standing(1, 1, 0)
    judge(ledger, [attempt], "caught")
    judge(ledger, [attempt], "agreed")
    assert standings(ledger)["a"] == Standing(1, 0, 1)
    with ledger.database.writing() as connection:
        audits.pardon(connection, attempt, "another found the same")
    assert standings(ledger)["a"] == Standing(1, 0, 0)


def test_the_first_decision_stays(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    attempt = finish(ledger, run, tasks[0], "a")
    with ledger.database.writing() as connection:
        audits.record(connection, ledger.database, [Audit(attempt, tasks[0].digest, "a", 0.9, False)])
    with ledger.database.reading() as connection:
        (found,) = audits.of(connection, [tasks[0].digest])
    assert (found.audit.chance, found.audit.drawn) == (0.5, True)


def test_a_refused_result_is_history_from_the_start(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    finish(ledger, run, tasks[0], "liar", refused="refused: not finite", verdict="caught", study="study")
    assert ledger.result(tasks[0].digest) is None
    (row,) = ledger.history(tasks[0].digest)
    assert row.reason == "refused: not finite"
    finish(ledger, run, tasks[0].replicated(0), "good")
    with ledger.database.reading() as connection:
        refused, counted = audits.of(connection, [tasks[0].digest])
    assert (refused.withdrawn, refused.refusal, counted.withdrawn) == (True, "refused: not finite", False)
    assert standings(ledger) == {"liar": Standing(1, 0, 1), "good": Standing(1, 0, 0)}


def test_replicas_are_found_by_what_they_compute(ledger: Ledger, run: int, tasks: list[Task]) -> None:
    replica = tasks[0].replicated(1000)
    ledger.add_tasks(run, [replica], first=len(tasks))
    finish(ledger, run, tasks[0], "a")
    finish(ledger, run, replica, "b")
    with ledger.database.reading() as connection:
        found = audits.of(connection, [tasks[0].digest, *("0" * 64 for _ in range(3))])
    assert [(each.task, each.replica, each.worker) for each in found] == [
        (tasks[0].digest, 0, "a/1"),
        (replica.digest, 1000, "b/1"),
    ]
    assert set(ledger.results(run)) == {tasks[0].digest, replica.digest}


def test_the_secret_of_a_home_is_made_once(tmp_path: Path) -> None:
    assert Home(tmp_path / "one").secret == Home(tmp_path / "one").secret != Home(tmp_path / "two").secret
    (tmp_path / "one" / "secret.key").write_text("not a key")
    with pytest.raises(StoreError, match=r"Expected 32 hexadecimal digits in .*secret\.key"):
        _ = Home(tmp_path / "one").secret
