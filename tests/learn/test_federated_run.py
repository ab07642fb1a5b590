"""A federated study run by real workers and nodes: the same bits on one and on two, on one machine and on several."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.study import Study
from manybody.learn.potentials.configurations import labelled
from manybody.network.federation.serve import Office
from manybody.store.home import Home
from manybody.study.expand import expand
from manybody.study.run import RunOptions, run_study
from manybody.testing.federation import Town
from manybody.testing.three_backends import Silent

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
    "checks": [{"name": "pooled", "excess": 0.9}],
    "seed": 5,
}


def computed(study: Study, place: Path) -> dict[str, tuple[str, str]]:
    """The digest of every task's result, and who computed it."""
    with closing(Home(place).ledger()) as ledger:
        rows = {task.digest: ledger.result(task.digest) for task in expand(study).tasks}
    return {digest: (row.result, row.worker) for digest, row in rows.items() if row is not None}


def results(study: Study, place: Path) -> dict[str, str]:
    return {digest: result for digest, (result, _) in computed(study, place).items()}


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


def hold(place: Path, name: str, seed: int) -> None:
    """Put configurations of 64 atoms where a node holds its data."""
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 1.1
    frames = sites + np.random.default_rng(seed).uniform(-0.12, 0.12, (8, 64, 3))
    place.mkdir(exist_ok=True)
    np.savez(place / f"{name}.npz", **labelled(frames, np.full(3, 4.4), 2.0).output().arrays)


def test_held_data_train_on_the_nodes_that_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two institutions on its own node, over a gateway: the bits of a machine that holds both."""
    institutions = [{"name": name, "held": f"{name}-2026"} for name in ("bonn", "delft")]
    study = Study.model_validate(
        STUDY | {"system": STUDY["system"] | {"institutions": institutions}, "checks": ["exact"], "budget": {"wall_time_s": 200}}
    )
    for seed, name in enumerate(("bonn", "delft")):
        hold(tmp_path / "together", f"{name}-2026", seed)
        hold(tmp_path / f"held-by-{name}", f"{name}-2026", seed)
    with Town(tmp_path / "town") as town:
        for name in ("bonn", "delft"):
            line = Office(town.home).invite()
            town.start_node(name, line, environment={"MANYBODY_DATA": str(tmp_path / f"held-by-{name}")}).wait_for("is ready")
        run_study(study, RunOptions(home=town.home.path, out=tmp_path / "out", network=town.address), Silent())
        apart = computed(study, town.home.path)
    fits = [task for task in expand(study).tasks if task.stage == "fit"]
    for task in fits:
        assert task.parameters["party"]["name"] in apart[task.digest][1]
    monkeypatch.setenv("MANYBODY_DATA", str(tmp_path / "together"))
    run_study(study, RunOptions(home=tmp_path / "home", out=tmp_path / "out", workers=2), Silent())
    assert results(study, tmp_path / "home") == {digest: result for digest, (result, _) in apart.items()}
