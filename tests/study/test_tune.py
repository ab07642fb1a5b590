"""What a study leaves to the network is measured once, chosen once, kept, and said."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from manybody.core.protocols import Event, NodeInfo
from manybody.core.study import Plan, Study
from manybody.core.task import Task
from manybody.engines.fields.spec import FiniteVolume
from manybody.numerics.rounds import Costs
from manybody.store.home import Home
from manybody.study.conduct import Tally
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.run import RunOptions, run_study
from manybody.study.tune import FOLDER, Figures, tune

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"
NEAR = Costs(dispatch_s=0.0, latency_s=1e-6, bytes_per_s=1e12)
FAR = Costs(latency_s=10.0)


class Watching:
    """Listens and keeps the plan."""

    def planned(self, plan: Plan, cached: int, nodes: Sequence[NodeInfo], expected_s: float) -> None:
        self.plan, self.cached = plan, cached

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        assert event.kind in ("started", "progress", "finished")

    def judged(self, outcome: Any) -> None:
        self.outcome = outcome


def study(*settings: str) -> Study:
    small = ("rows=64", "columns=48", "time_step=0.01", "duration=0.2")
    return load_study(GALLERY, ["checks=[conservation, exact]", *(f"method.{setting}" for setting in (*small, *settings))])


def knows(home: Home, costs: Costs) -> None:
    """Let a home have measured this network before, whichever it is."""
    for place in (home.path / FOLDER / "networks").glob("*.json"):
        place.write_text(Figures(network="near or far", costs=costs, measured=0.0).model_dump_json(), encoding="utf-8")


def steps(tuned: Study) -> int:
    assert isinstance(tuned.method, FiniteVolume)
    assert isinstance(tuned.method.steps_per_round, int)
    return tuned.method.steps_per_round


def test_a_run_measures_chooses_and_says_so(tmp_path: Path) -> None:
    """One run on real workers: the choice, the prediction and the measured time stand in the report."""
    listener, options = Watching(), RunOptions(home=tmp_path / "home", out=tmp_path / "out", workers=2)
    outcome = run_study(study(), options, listener)
    chosen = steps(listener.plan.study)
    assert 1 <= chosen <= 4
    assert f"steps per round {chosen}, for a network with" in listener.plan.notes[0]
    assert load_study(tmp_path / "out").digest == listener.plan.study.digest == outcome.digest
    report = outcome.report.read_text(encoding="utf-8")
    assert f"steps per round {chosen}" in report
    assert "rounds: predicted" in report
    assert "rounds: measured" in report
    home = Home(tmp_path / "home")
    left = {path.parent.name + path.stem for path in home.objects.root.glob("??/*.safetensors")}
    with_results = {task.digest for task in listener.plan.tasks}
    assert len(left) <= len(with_results), "what trials and excerpts left is removed"

    # Resumed with other figures: the same tasks, all of them kept.
    knows(home, FAR if chosen < 4 else NEAR)
    again = Watching()
    run_study(study(), options, again)
    assert [task.digest for task in again.plan.tasks] == [task.digest for task in listener.plan.tasks]
    assert again.cached == len(again.plan.tasks)


def test_the_choice_follows_the_figures_and_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = tune(study(), home, None, 1, fresh=False)  # measured on one real worker
    assert first.figures is not None
    assert first.figures.costs.workers == 1
    assert tune(study(), home, None, 1, fresh=False).study == first.study
    knows(home, NEAR)
    assert tune(study(), home, None, 1, fresh=False).study == first.study, "chosen before"
    assert steps(tune(study("duration=0.3"), home, None, 1, fresh=False).study) == 1, "another study takes what is known now"
    knows(home, FAR)
    assert steps(tune(study("duration=0.4"), home, None, 1, fresh=False).study) == 4


@pytest.mark.parametrize("settings", [("steps_per_round=2",), ("run=gang",), ("costs={latency_s: 1.0}",)])
def test_what_is_not_left_open_is_not_measured(tmp_path: Path, settings: tuple[str, ...]) -> None:
    tuned = tune(study(*settings), Home(tmp_path / "home"), "https://nobody.invalid:1", None, fresh=True)
    assert tuned.study == study(*settings)
    assert tuned.notes == ()
    assert tuned.told(1.0) == {}
    assert not (tmp_path / "home").exists()


def test_points_that_need_other_rounds_get_their_own(tmp_path: Path) -> None:
    """Ten steps to a sample: in 3 rounds where slabs have 32 rows (4 steps of 8), in 2 where they have 64."""
    home = Home(tmp_path)
    asked = study().model_copy(update={"sweep": ({"method.rows": 64}, {"method.rows": 128})})
    choice = home.path / FOLDER / "studies" / f"{asked.digest}.json"
    choice.parent.mkdir(parents=True)
    choice.write_text(Figures(network="far", costs=FAR, measured=0.0).model_dump_json(), encoding="utf-8")
    plan = expand(tune(asked, home, None, 1, fresh=False).study)
    rounds = [{task.parameters["steps"] for task in run.tasks if task.stage == "advance"} for run in plan.realisations]
    assert rounds == [{4, 2}, {5}]


def test_of_two_runs_that_want_figures_at_once_one_measures(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: tune(study(), home, None, 1, fresh=False), range(2))
    assert first.figures is not None
    assert first == second
