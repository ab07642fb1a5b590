"""A ledger with a study and tasks in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manybody.core.study import Study
from manybody.core.task import Task
from manybody.store.ledger import Ledger

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


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record_study(STUDY)
    yield ledger
    ledger.close()


@pytest.fixture
def run(ledger: Ledger, tasks: list[Task], tmp_path: Path) -> int:
    number = ledger.begin_run(STUDY.digest, tmp_path / "out", "manybody run", {"python": "3.11"})
    ledger.add_tasks(number, tasks)
    return number
