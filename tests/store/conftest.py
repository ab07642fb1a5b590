"""A ledger with a study and tasks in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manybody.core.study import Study
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.testing.postgres import PostgresServer, installed_programs, running

STUDY = Study.model_validate(
    {
        "name": "test-liquid",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": {"name": "molecular-dynamics", "duration": 400.0, "segment": 200.0},
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)


@pytest.fixture
def study() -> Study:
    return STUDY


@pytest.fixture
def tasks() -> list[Task]:
    return [Task(method="m", stage="s", version="1", system={}, parameters={"index": i}, cost=i) for i in range(5)]


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    programs = installed_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed: install the package postgresql to have these tests")
    with running(programs) as server:
        yield server


@pytest.fixture
def where(tmp_path: Path) -> str:
    """The address of the ledger under test; a test file that runs on several databases has its own."""
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture
def ledger(where: str) -> Iterator[Ledger]:
    ledger = Ledger(where)
    ledger.record_study(STUDY)
    yield ledger
    ledger.close()


@pytest.fixture
def run(ledger: Ledger, tasks: list[Task], tmp_path: Path) -> int:
    number = ledger.begin_run(STUDY.digest, tmp_path / "out", "manybody run", {"python": "3.11"})
    ledger.add_tasks(number, tasks)
    return number
