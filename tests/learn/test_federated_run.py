"""A federated study run by real workers: the same bits on one and on two, and a report with what it should look like."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from manybody.core.certificate import Verdict
from manybody.core.study import Study
from manybody.store.home import Home
from manybody.study.expand import expand
from manybody.study.run import RunOptions, run_study


class Silent:
    """A listener that says nothing, whatever it is told."""

    def __getattr__(self, name: str) -> object:
        return lambda *told: None


STUDY = {
    "name": "two-rounds",
    "system": {
        "name": "federated-liquid",
        "institutions": [
            {"name": "bonn", "temperature": 1.0, "density": 0.75},
            {"name": "delft", "temperature": 1.6, "density": 0.7},
        ],
        "atoms": 64,
        "cutoff": 2.0,
        "configurations": 8,
        "equilibration": 1.0,
    },
    "method": {"name": "federated-learning", "rounds": 2, "learning_rate": 1.0},
    "measures": ["potential-error", "learned-potential", "training-loss"],
    "checks": [{"name": "pooled", "excess": 0.9}, "replication"],
    "seed": 5,
}


def results(study: Study, place: Path) -> dict[str, str]:
    with closing(Home(place).ledger()) as ledger:
        rows = {task.digest: ledger.result(task.digest) for task in expand(study).tasks}
    return {digest: row.result for digest, row in rows.items() if row is not None}


@pytest.fixture
def study() -> Study:
    return Study.model_validate(STUDY)


def test_one_and_two_workers_give_the_same_bits(study: Study, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        place = tmp_path / str(workers)
        outcome = run_study(study, RunOptions(home=place, out=place / "out", workers=workers), Silent())
        assert outcome.verdict is Verdict.HOLDS
        found.append(results(study, place))
    assert found[0] == found[1]
    assert len(found[0]) == len(expand(study).tasks)
    page = (tmp_path / "2" / "out" / "report.html").read_text()
    assert "Dotted: what it should be" in page
