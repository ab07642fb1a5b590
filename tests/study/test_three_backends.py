"""One study of a split field on all backends, with real processes: every task gives the same bits everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from manybody.core.study import Study
from manybody.network.cluster_local import LocalCluster
from manybody.store.home import Home
from manybody.store.objects import ObjectStore
from manybody.study.excerpts import MARK
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.run import RunOptions, run_study
from manybody.testing.federation import Town
from manybody.testing.three_backends import Silent

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"
SMALL = ("rows=48", "columns=48", "time_step=0.01", "sample_every=0.05", "duration=0.1", "steps_per_round=1")


def study(*settings: str) -> Study:
    return load_study(GALLERY, ["checks=[conservation, exact]", *(f"method.{setting}" for setting in (*SMALL, *settings))])


def run(asked: Study, home: Home, network: str | None) -> dict[str, str]:
    """Run a study; the result digests of all of its tasks, which hold."""
    outcome = run_study(asked, RunOptions(home=home.path, out=home.path / "out", network=network, workers=2), Silent())
    assert outcome.verdict == "holds"
    with closing(home.ledger()) as ledger:
        rows = {task.digest: ledger.result(task.digest) for task in expand(asked).tasks}
    assert all(rows.values())
    return {task: row.result for task, row in rows.items() if row}


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Home, str]]:
    """A scheduler, and a Dask worker of two cores."""
    with LocalCluster(folder / "machines", nodes=1, cores=2) as machines:
        home = Home(folder / "home")
        home.path.mkdir()
        (home.path / "tls").symlink_to(machines.tls)
        yield home, machines.address


@pytest.mark.timeout(600)
def test_a_split_field_has_the_same_bits_on_three_backends(tmp_path: Path) -> None:
    here = run(study(), Home(tmp_path / "embedded"), None)
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as (home, address):
        assert run(study(), home, address) == here
        together = run(study("run=gang"), home, address)
    gathered = {task.parameters["step"]: here[task.digest] for task in expand(study()).tasks if task.stage == "gather"}
    tasks = expand(study("run=gang")).tasks
    assert {task.parameters["step"]: together[task.digest] for task in tasks if task.stage == "gather"} == gathered
    with Town(tmp_path / "federation") as town:
        town.add_nodes("one", "two")
        assert run(study(), town.home, town.address) == here
        stores = [ObjectStore(tmp_path / "federation" / name / "objects") for name in ("one", "two")]
    held = [store.get(path.parent.name + path.stem) for store in stores for path in store.root.glob("??/*.safetensors")]
    excerpts = [output for output in held if MARK in output.document]
    assert excerpts, "nodes fetched what rounds read"
    assert {output.arrays["slab"].shape for output in excerpts} == {(8, 48)}
