"""A gang in a study: the bits of rounds, whatever happens to its members, and refusals before anything runs."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from manybody.core.errors import InputError
from manybody.core.protocols import Event, NodeInfo
from manybody.core.random import Key
from manybody.core.study import Plan, Study
from manybody.core.task import Task
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.spec import AdvectedField, FiniteVolume
from manybody.network.federation.backend import Federation
from manybody.network.gang import LAUNCHER
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.study.conduct import Tally
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.gangs import refuse_impossible_gangs
from manybody.study.run import RunOptions, run_study

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"
SMALL = ("rows=48", "columns=48", "time_step=0.01", "duration=0.2")


class Watching:
    """Listens; does something with each event, and counts them by kind and stage."""

    def __init__(self, then: Callable[[Event, Task], None] = lambda event, task: None) -> None:
        self.then, self.seen = then, Counter[tuple[str, str]]()

    def planned(self, plan: Plan, cached: int, nodes: Sequence[NodeInfo], expected_s: float) -> None:
        self.plan = plan

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        self.seen[event.kind, task.stage] += 1
        self.then(event, task)

    def judged(self, outcome: Any) -> None:
        self.outcome = outcome


def study(*settings: str) -> Study:
    return load_study(GALLERY, ["checks=[conservation, exact]", *(f"method.{setting}" for setting in settings)])


def run(asked: Study, folder: Path, listener: Watching) -> Home:
    run_study(asked, RunOptions(home=folder / "home", out=folder / "out", workers=2), listener)
    return Home(folder / "home")


def gathered(home: Home, plan: Plan) -> dict[int, str]:
    """The digests of what was gathered, by step."""
    with closing(home.ledger()) as ledger:
        rows = {task.parameters["step"]: ledger.result(task.digest) for task in plan.tasks if task.stage == "gather"}
    assert all(rows.values())
    return {step: row.result for step, row in rows.items() if row}


def test_a_study_as_a_gang_has_the_bits_of_rounds(tmp_path: Path) -> None:
    rounds, gang = Watching(), Watching()
    one = run(study(*SMALL), tmp_path / "rounds", rounds)
    other = run(study(*SMALL, "run=gang"), tmp_path / "gang", gang)
    assert gathered(one, rounds.plan) == gathered(other, gang.plan)
    assert gang.seen["finished", "together"] == 1
    assert ("finished", "advance") not in gang.seen
    assert ("finished", "together") not in rounds.seen
    assert gang.outcome.verdict == rounds.outcome.verdict == "holds"


def room(backend: Embedded, plan: Plan) -> Iterator[tuple[str, str]]:
    """What starts and ends, in order, of a gang of two between ordinary tasks that need nothing."""
    ordinary = next(task for task in expand(study(*SMALL)).tasks if task.stage == "start")
    gang = next(task for task in plan.tasks if task.stage == "together")
    for number, task in enumerate((ordinary, gang, ordinary, ordinary)):
        backend.submit(f"{task.stage} {number}", task, {})
    for event in backend.events():
        if event.kind != "progress":
            yield event.kind, event.attempt


def test_a_gang_takes_a_core_for_each_member(tmp_path: Path) -> None:
    """A gang of two on two workers waits for both, and while it runs nothing else does."""
    has_mpi = importlib.util.find_spec("mpi4py") and (Path(sys.executable).parent / LAUNCHER).exists()
    quicker = "mpi" if has_mpi else "gloo"
    with Embedded(tmp_path, workers=2) as backend:
        told = list(room(backend, expand(study(*SMALL, "run=gang", f"channel={quicker}"))))
    assert told[:4] == [("started", "start 0"), ("finished", "start 0"), ("started", "together 1"), ("finished", "together 1")]
    assert len(told) == 8


@pytest.mark.fault(
    "kill -9 of a worker",
    on="embedded",
    happens="a member of a gang: the others are ended, and the task is tried again",
    kept="the samples of earlier tasks of the gang; the same bits",
)
def test_a_gang_that_loses_a_member_is_tried_again(tmp_path: Path) -> None:
    """kill -9 of a member: the attempt is lost, the next one is right, and nobody stays behind."""
    killed: list[psutil.Process] = []

    def kill_one(event: Event, task: Task) -> None:
        if event.kind == "progress" and task.stage == "together" and not killed:
            members = [each for each in psutil.Process().children(recursive=True) if "manybody.network.member" in each.cmdline()]
            assert len(members) == 2
            killed.extend(members)
            members[1].kill()

    asked = study("rows=48", "columns=48", "time_step=0.01", "duration=20", "sample_every=10", "run=gang")
    listener = Watching(kill_one)
    home = run(asked, tmp_path, listener)
    assert listener.seen["lost", "together"] == 1
    assert listener.seen["finished", "together"] == 1
    assert not any(each.is_running() for each in killed)
    method, system = asked.method, asked.system
    assert isinstance(method, FiniteVolume)
    assert isinstance(system, AdvectedField)
    engine = FieldEngine(system, method.grid)
    found = home.objects.get(gathered(home, listener.plan)[2000]).arrays["field"]
    np.testing.assert_array_equal(found, engine.step(engine.init(Key.from_seed(0)), 2000).field)


def test_a_gang_without_room_is_refused_before_anything_runs(tmp_path: Path) -> None:
    plan = expand(study(*SMALL, "run=gang", "parts=3"))
    with Embedded(tmp_path, workers=2) as backend:
        with pytest.raises(InputError, match=r"gangs of at most 2, a core of one machine each; got 3.*method\.run=rounds"):
            refuse_impossible_gangs(plan, backend)
        refuse_impossible_gangs(expand(study(*SMALL)), backend)


def test_a_federation_refuses_gangs_before_anything_runs(tmp_path: Path) -> None:
    plan = expand(study(*SMALL, "run=gang"))
    with Federation(Home(tmp_path).ledger()) as backend:
        with pytest.raises(InputError, match=r"nodes of a federation cannot reach each other.*method\.run=rounds"):
            refuse_impossible_gangs(plan, backend)
        refuse_impossible_gangs(expand(study(*SMALL)), backend)
