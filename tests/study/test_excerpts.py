"""Excerpts: tasks are lent what they read of a result, verified, gone afterwards, and cut again where it is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from manybody.core.errors import CorruptResultError
from manybody.core.protocols import Event
from manybody.core.study import Plan, Realisation, Study
from manybody.core.task import Output, Task
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.store.objects import ObjectStore
from manybody.study.conduct import Conductor
from manybody.study.excerpts import Excerpts
from manybody.study.expand import expand
from manybody.study.file import load_study

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"


def study(*settings: str) -> Study:
    return load_study(GALLERY, ["checks=[exact]", *(f"method.{setting}" for setting in settings)])


@pytest.fixture
def plan() -> Plan:
    """Two slabs of 64 x 128, which read 8 rows of each other."""
    return expand(study("steps_per_round=1", "duration=0.2"))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path)


def first_round(plan: Plan, store: ObjectStore) -> tuple[Task, dict[str, str]]:
    """A round, and the results that it reads."""
    task = next(task for task in plan.tasks if task.stage == "advance")
    slabs = np.random.default_rng(1).normal(size=(2, 64, 128))
    needed = dict.fromkeys(task.inputs.values())
    return task, {need: store.put(Output({"slab": slab})).digest for need, slab in zip(needed, slabs, strict=True)}


def test_a_task_is_lent_the_rows_that_it_reads(plan: Plan, store: ObjectStore) -> None:
    task, results = first_round(plan, store)
    lent = Excerpts(plan.tasks, store).inputs(task, results)
    whole = {name: store.get(results[need]).arrays["slab"] for name, need in task.inputs.items()}
    assert lent["own"] == results[task.inputs["own"]]
    np.testing.assert_array_equal(store.get(lent["west"]).arrays["slab"], whole["west"][-8:])
    np.testing.assert_array_equal(store.get(lent["east"]).arrays["slab"], whole["east"][:8])
    moved = {name: store.path(digest).stat().st_size for name, digest in lent.items()}
    before = {name: store.path(results[need]).stat().st_size for name, need in task.inputs.items()}
    assert moved["west"] == moved["east"] < before["west"] / 7
    assert sum(moved.values()) < sum(before.values()) / 2


def test_excerpts_are_removed_and_results_are_not(plan: Plan, store: ObjectStore) -> None:
    task, results = first_round(plan, store)
    excerpts = Excerpts(plan.tasks, store)
    lent = excerpts.inputs(task, results)
    excerpts.discard(task.digest)
    assert [store.has(lent[name]) for name in ("west", "own", "east")] == [False, True, False]
    assert all(store.has(result) for result in results.values())
    again = excerpts.inputs(task, results)
    assert again == lent
    assert store.has(again["west"])
    excerpts.discard_all()
    assert not store.has(again["west"])


def test_a_lost_excerpt_is_noticed(plan: Plan, store: ObjectStore) -> None:
    task, results = first_round(plan, store)
    excerpts = Excerpts(plan.tasks, store)
    lent = excerpts.inputs(task, results)
    assert not excerpts.are_gone(task.digest)
    store.remove(lent["east"])
    assert excerpts.are_gone(task.digest)


def test_what_is_nearly_all_is_not_cut(store: ObjectStore) -> None:
    """Halos of 8 steps are whole slabs here."""
    plan = expand(study("steps_per_round=8", "duration=0.2"))
    task, results = first_round(plan, store)
    assert set(Excerpts(plan.tasks, store).inputs(task, results).values()) == set(results.values())


def test_nothing_is_cut_from_a_corrupt_result(plan: Plan, store: ObjectStore) -> None:
    task, results = first_round(plan, store)
    path = store.path(results[task.inputs["west"]])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptResultError):
        Excerpts(plan.tasks, store).inputs(task, results)


class Spoiling(Embedded):
    """Loses what the first round is lent on its way to the worker."""

    spoilt = 0

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        if task.stage == "advance" and not self.spoilt:
            self.spoilt += 1
            self.objects_root.joinpath(inputs["east"][:2], f"{inputs['east'][2:]}.safetensors").unlink()
        super().submit_resumable(attempt, task, inputs, avoid, checkpoint)


def conducted(home: Home, plan: Plan, backend: Embedded) -> Iterator[Event]:
    """Conduct the tasks of the first sample; what was told."""
    tasks = tuple(task for task in plan.tasks if task.stage in ("start", "advance"))[:6]
    told: list[Event] = []
    with closing(home.ledger()) as ledger:
        ledger.record_study(plan.study)
        run = ledger.begin_run(plan.study.digest, home.path, "test", {})
        ledger.add_tasks(run, tasks)
        few = Plan(plan.study, (Realisation(plan.points[0], 0, tasks, ()),))
        Conductor(few, run, ledger, home.objects, backend).conduct(lambda event, *rest: told.append(event))
    yield from told


def test_a_task_whose_excerpt_is_lost_is_tried_again(plan: Plan, tmp_path: Path) -> None:
    home = Home(tmp_path)
    with Spoiling(home.objects.root, workers=2) as backend:
        told = [event.kind for event in conducted(home, plan, backend)]
    assert backend.spoilt == 1
    assert told.count("failed") == 1
    assert told.count("finished") == 6
    assert len(list(home.objects.root.glob("??/*.safetensors"))) == 6, "nothing but results stays"
