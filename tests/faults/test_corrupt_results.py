"""A result that rots on the disk is noticed, set aside and computed again, by the run and by its workers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manybody.core.protocols import Event
from manybody.core.study import Study
from manybody.core.task import Task
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.study.conduct import Tally
from manybody.study.expand import expand
from manybody.study.run import RunOptions, run_study
from manybody.testing.methods import task

FIELD = Study.model_validate(
    {
        "name": "small-field",
        "system": {"name": "advected-field", "waves": [{"cycles_x": 1, "cycles_y": 1}]},
        "method": {"name": "finite-volume", "duration": 0.25, "steps_per_round": 4},
        "measures": ["field-variance"],
        "checks": ["conservation"],
    }
)


@pytest.mark.fault(
    "a result that rots on the disk",
    on="all",
    happens="found when it is next read, set aside with the reason, and computed again",
    kept="the same bits",
)
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_result_is_computed_again_to_the_same_bits(site: Any, damage: str) -> None:
    tasks = [task("fill", nbytes=10_000).model_copy(update={"repeat": number}) for number in range(3)]
    site.start(tasks).until("end")
    ledger = site.home.ledger()
    before = [ledger.result(done.digest).result for done in tasks]
    path = site.home.objects.path(before[1])
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.chmod(0o644)
    path.write_bytes(data if damage == "flipped" else data[:5000])
    again = site.start(tasks)
    assert again.until("withdrawn")["task"] == tasks[1].digest
    end = again.until("end")
    assert (end["cached"], end["computed"]) == (2, 1)
    assert [ledger.result(done.digest).result for done in tasks] == before
    assert ["corrupt" in row.reason for row in ledger.history(tasks[1].digest)] == [True, False]
    assert len(list(site.home.objects.quarantine.iterdir())) == 2  # the bytes and the reason
    site.assert_intact()
    ledger.close()


def test_a_worker_never_computes_with_a_damaged_input(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", site.environment["PYTHONPATH"])
    objects = site.home.objects
    with Embedded(objects.root, workers=1) as backend:
        backend.submit("a", task("add", terms=[1.0]), {})
        result = next(event.result for event in backend.events() if event.kind == "finished")
        objects.path(result).chmod(0o644)
        objects.path(result).write_bytes(objects.path(result).read_bytes()[:-1])
        backend.submit("b", task("add", inputs={"a": "0" * 64}, terms=[1.0]), {"a": result})
        end = list(backend.events())[-1]
    assert end.kind == "failed"
    assert result in end.reason
    assert "corrupt" in end.reason
    assert not objects.has(result)  # by this a conductor knows what to compute again


class Meddler:
    """As a second run of the study would: finds a result rotten when this run has just computed everything."""

    def __init__(self, home: Home, task: str) -> None:
        self.home, self.task = home, task
        self.withdrawn: list[bool] = []

    def planned(self, *told: object) -> None: ...

    def judged(self, *told: object) -> None: ...

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        if tally.computed == tally.total and not self.withdrawn:
            with closing(self.home.ledger()) as ledger:
                self.withdrawn.append(ledger.withdraw(self.task, "found corrupt"))


def test_what_another_run_withdraws_at_the_last_moment_is_computed_again(tmp_path: Path) -> None:
    home, first = Home(tmp_path / "home"), expand(FIELD).tasks[0].digest
    meddler = Meddler(home, first)
    outcome = run_study(FIELD, RunOptions(home=home.path, out=tmp_path / "out"), meddler)
    assert meddler.withdrawn == [True]
    assert (outcome.verdict, outcome.tally.computed) == ("holds", outcome.tally.total)
    with closing(home.ledger()) as ledger:
        before, after = ledger.history(first)
    assert before.result == after.result
    assert after.withdrawn is None


class Remover:
    """Takes the slabs at the start off the disk, once, as soon as they are all there and before anybody reads them."""

    def __init__(self, home: Home, left: int) -> None:
        self.home, self.left = home, left
        self.slabs: list[str] = []

    def planned(self, *told: object) -> None: ...

    def judged(self, *told: object) -> None: ...

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        if event.kind == "finished" and task.stage == "start" and self.left:
            self.left -= 1
            self.slabs.append(event.result)
            if not self.left:
                for result in self.slabs:
                    self.home.objects.remove(result)


def test_inputs_that_several_tasks_miss_are_computed_again_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    starts = [task.digest for task in expand(FIELD).tasks if task.stage == "start"]
    outcome = run_study(FIELD, RunOptions(home=home.path, out=tmp_path / "out", workers=4), Remover(home, len(starts)))
    assert outcome.verdict == "holds"
    with closing(home.ledger()) as ledger:
        assert [len(ledger.history(digest)) for digest in starts] == [2] * len(starts)
