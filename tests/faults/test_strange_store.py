"""Coordinators that share a ledger on a server but not the store: refused, before either spoils the other's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from manybody.core.errors import StoreError
from manybody.core.study import Plan, Study
from manybody.core.task import Output
from manybody.network.local import Embedded
from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore
from manybody.store.provenance import provenance
from manybody.study.conduct import Conductor
from manybody.testing.methods import task
from manybody.testing.postgres import installed_programs, running

STUDY = Study.model_validate(
    {
        "name": "shared",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
TASK = task("add", terms=[1.0])


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    programs = installed_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed: install the package postgresql to have this test")
    with running(programs) as server, closing(Ledger(server.ledger())) as ledger:
        ledger.record_study(STUDY)
        yield ledger


def recover(ledger: Ledger, objects: ObjectStore) -> int:
    run = ledger.begin_run(STUDY.digest, Path("out"), "recover", provenance())
    with closing(Embedded(objects.root, 1)) as backend:
        return Conductor(Plan(STUDY, (), ((TASK,),)), run, ledger, objects, backend).recover()


@pytest.mark.fault(
    "a second coordinator started by mistake",
    on="all",
    happens="on another machine that shares the ledger but not the store, it is refused",
    kept="the results of the first",
)
def test_a_result_of_another_machine_is_withdrawn_only_where_it_was_found_corrupt(ledger: Ledger, tmp_path: Path) -> None:
    theirs, ours = ObjectStore(tmp_path / "theirs"), ObjectStore(tmp_path / "ours")
    run = ledger.begin_run(STUDY.digest, Path("out"), "compute", {"host": "far"})
    ledger.add_tasks(run, [TASK])
    stored = theirs.put(Output(document={"total": 1.0}))
    ledger.finish(ledger.claim(run, TASK.digest).attempt, stored.digest, stored.nbytes, 1.0, "w", {"host": "far"})
    with pytest.raises(StoreError, match=r"which far has computed.*share a ledger must see the same objects"):
        recover(ledger, ours)
    assert ledger.result(TASK.digest) is not None
    assert recover(ledger, theirs) == 1
    theirs.path(stored.digest).rename(theirs.quarantine / f"{stored.digest}.0123")
    assert recover(ledger, theirs) == 0
    assert ledger.result(TASK.digest) is None
