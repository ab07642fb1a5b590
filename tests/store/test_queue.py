"""Second tries in the queue of the federation: one that has been recorded as its attempt is nobody's to take over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, update

from manybody.core.study import Study
from manybody.core.task import Task
from manybody.store import queue
from manybody.store.ledger import Ledger
from manybody.store.liveness import Owner
from manybody.store.queue import TWIN
from manybody.store.schema import queue as rows

STUDY = Study.model_validate(
    {
        "name": "twins",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
TASK = Task(method="toy", stage="add", version="1", system={}, parameters={})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.record_study(STUDY)
        yield ledger


def submit(ledger: Ledger, attempt: str) -> None:
    with ledger.database.writing() as connection:
        queue.submit(connection, queue.Queued(attempt, TASK, {}, frozenset(), 600.0))


def end_elsewhere(ledger: Ledger, attempt: str) -> None:
    """Let an attempt have finished for a process that is gone."""
    gone = Owner(Owner.this().machine, Owner.this().pid, Owner.this().started - 1).label  # this number, in another life
    with ledger.database.writing() as connection:
        ended = {"state": "finished", "result": "ab" * 32, "owner": gone}
        connection.execute(update(rows).where(rows.c.attempt == attempt).values(ended))


def test_what_was_never_claimed_is_not_taken_over(ledger: Ledger) -> None:
    """A trial that went past the ledger has left nothing to rely on: its result may have been removed since."""
    submit(ledger, "trial")
    end_elsewhere(ledger, "trial")
    submit(ledger, "later")
    with ledger.database.reading() as connection:
        assert queue.standings(connection, ["later"]) == []
        assert queue.orphans(connection) == set()


@pytest.mark.parametrize("recorded", [True, False])
def test_the_result_of_a_second_try_is_taken_over_only_where_it_was_not_recorded(ledger: Ledger, recorded: bool) -> None:
    """Its process is killed: what it had recorded under the attempt's own name is not computed, or counted, once more."""
    run = ledger.begin_run(STUDY.digest, Path("out"), "test", {})
    ledger.add_tasks(run, [TASK])
    attempt = ledger.claim(run, TASK.digest).attempt
    submit(ledger, attempt)
    submit(ledger, attempt + TWIN)
    with ledger.database.writing() as connection:
        queue.cancel(connection, attempt)
    end_elsewhere(ledger, attempt + TWIN)
    if recorded:
        assert ledger.finish(attempt, "ab" * 32, 1, 1.0, "node/w", {})
        ledger.withdraw(TASK.digest, "computed afresh on request")
    submit(ledger, "later")
    with ledger.database.reading() as connection:
        found = queue.standings(connection, ["later"])
        assert (queue.orphans(connection) == set()) == recorded
    assert [each.state for each in found] == ([] if recorded else ["finished"])


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_lease_ends_as_late_as_ever_though_the_clock_was_set(ledger: Ledger, jump: float) -> None:
    """One attempt was leased 10 s before the clock was set, another after it."""
    now = time.time()
    leased = {"before": now - jump - 10.0, "after": now - 1.0}
    with ledger.database.writing() as connection:
        for attempt, since in leased.items():
            queue.submit(connection, queue.Queued(attempt, TASK, {}, frozenset(), 600.0))
            wanted = update(rows).where(rows.c.attempt == attempt)
            connection.execute(wanted.values(state="leased", leased=since, expires=since + 15.0))
        queue.follow_clock(connection, jump, now - 5.0)
        columns = (rows.c.attempt, rows.c.leased, rows.c.expires)
        found = {attempt: times for attempt, *times in connection.execute(select(*columns))}
    assert found["before"] == pytest.approx([now - 10.0, now + 5.0], abs=1e-3)
    assert found["after"] == pytest.approx([now - 1.0, now + 14.0], abs=1e-3)
