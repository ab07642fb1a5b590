"""Learned cost: the factors that made the timings are found again, whatever a few of them say."""

from __future__ import annotations

import math
from contextlib import closing
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from manybody.core.protocols import NodeInfo
from manybody.core.study import Plan, Study
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.study.costs import Costs, Timing, kind_of, known_timings, learn, node_of, priced, repriced

STUDY = Study.model_validate(
    {
        "name": "costs",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)

PACE = {("molecular-dynamics", "produce", "1"): 0.2, ("finite-volume", "advance", "1"): 5.0}
SLOWNESS = {"fast": 0.5, "middling": 1.0, "slow": 10.0}


def timing(kind: tuple[str, str, str], node: str, cost: float, noise: float = 1.0) -> Timing:
    return Timing(kind, cost, cost * PACE[kind] * SLOWNESS[node] * noise, node)


def task(kind: tuple[str, str, str], cost: float = 1.0) -> Task:
    method, stage, version = kind
    return Task(method=method, stage=stage, version=version, system={}, parameters={}, cost=cost)


def test_nothing_known_leaves_the_prediction() -> None:
    costs = learn([])
    wanted = task(("finite-volume", "advance", "1"), 7.0)
    assert costs == Costs()
    assert costs.seconds(wanted) == costs.seconds(wanted, "anywhere") == 7.0
    assert not costs.knows(wanted)


def test_pace_and_slowness_are_told_apart() -> None:
    """Exact timings give the exact factors: the model has no more freedom than they determine."""
    costs = learn([timing(kind, node, cost) for kind, node, cost in product(PACE, SLOWNESS, (0.5, 2.0, 8.0))])
    for kind, pace in PACE.items():
        assert costs.pace[kind] == pytest.approx(pace)
        for node, slowness in SLOWNESS.items():
            assert costs.slowness[node] == pytest.approx(slowness)
            assert costs.seconds(task(kind, 3.0), node) == pytest.approx(3.0 * pace * slowness)


def test_outliers_move_nothing() -> None:
    """A fifth of the timings a thousand times too long; the others scatter by 10 %: a median is off by 4 standard errors
    at most, 4 x 1.25 x 0.1 / sqrt(30)."""
    generator = np.random.default_rng(7)
    seen = []
    for kind, node in product(PACE, SLOWNESS):
        noise = np.exp(0.1 * generator.standard_normal(30))
        noise[:3], noise[3:6] = 1000.0, 0.001
        seen += [timing(kind, node, 1.0, value) for value in noise]
    costs = learn(seen)
    bound = 2 * 4 * 1.25 * 0.1 / math.sqrt(30)  # of both factors
    for kind, node in product(PACE, SLOWNESS):
        assert abs(math.log(costs.seconds(task(kind), node) / (PACE[kind] * SLOWNESS[node]))) < bound


def test_the_order_of_timings_does_not_matter() -> None:
    seen = [timing(kind, node, cost, 1 + 0.1 * cost) for kind, node, cost in product(PACE, SLOWNESS, (0.5, 2.0, 8.0))]
    assert learn(seen) == learn(seen[::-1]) or learn(seen).slowness == pytest.approx(learn(seen[::-1]).slowness)


def test_measured_speeds_stand_in_until_there_are_timings() -> None:
    """A node that does a tenth of the predicted cost a second is ten times slower than one that does all of it."""
    speeds = {"one": {"finite-volume": 1.0}, "two": {"finite-volume": 1.0}, "slow": {"finite-volume": 0.1}}
    costs = learn([], speeds)
    assert costs.slowness == pytest.approx({"one": 1.0, "two": 1.0, "slow": 10.0})
    assert costs.pace == {}
    kind = ("finite-volume", "advance", "1")
    learned = learn([Timing(kind, 1.0, 1.0, "slow"), Timing(kind, 1.0, 1.0, "slow"), Timing(kind, 1.0, 1.0, "one")], speeds)
    assert learned.slowness["slow"] < 3.0, "what it does counts more than what it once said"


def test_timings_that_are_none_are_left_out() -> None:
    kind = ("finite-volume", "advance", "1")
    nonsense = [Timing(kind, 0.0, 1.0, "a"), Timing(kind, 1.0, 0.0, "a"), Timing(kind, math.inf, 1.0, "a")]
    assert learn(nonsense) == Costs()


def test_prices_and_capacity_follow() -> None:
    costs = Costs({("finite-volume", "advance", "1"): 3.0}, {"slow": 10.0})
    wanted = task(("finite-volume", "advance", "1"), 2.0)
    plan = priced(Plan(STUDY, (), ((wanted,),)), costs)
    assert [(each.cost, each.digest) for each in plan.tasks] == [(6.0, wanted.digest)]
    assert repriced([Timing(kind_of(wanted), 2.0, 8.0, "slow")], costs) == [Timing(kind_of(wanted), 6.0, 8.0, "slow")]
    nodes = [NodeInfo(name="slow", workers=5, threads=1), NodeInfo(name="other", workers=2, threads=1)]
    assert costs.capacity(nodes) == 2.5
    here = costs.on(nodes)  # 7 workers do the work of 2.5: the mean one takes 2.8 times as long
    assert here.seconds(wanted) == pytest.approx(2.8 * 6.0)
    assert here.seconds(wanted, "slow") == pytest.approx(costs.seconds(wanted, "slow"))
    assert here.capacity(nodes) == pytest.approx(7.0)


def test_the_ledger_remembers_what_tasks_took(tmp_path: Path) -> None:
    """Tasks of another kind do not count; a worker of this machine stands for the host of its run."""
    kind, other = ("finite-volume", "advance", "1"), ("finite-volume", "advance", "2")
    seen = [
        task(each, cost).model_copy(update={"repeat": number})
        for number, (each, cost) in enumerate([(kind, 1.0), (kind, 2.0), (other, 3.0)])
    ]
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.record_study(STUDY)
        run = ledger.begin_run(STUDY.digest, tmp_path, "test", {"host": "here"})
        ledger.add_tasks(run, seen)
        for each, worker in zip(seen, ("local-17-1", "lab-3/local-18-1", "lab-3/local-18-1"), strict=True):
            attempt = ledger.claim(run, each.digest).attempt
            assert ledger.finish(attempt, "ab" * 32, 1, 7.0 * each.cost, worker, {"host": "here"})
        found = known_timings(ledger, [task(kind)])
    assert sorted(found, key=lambda timing: timing.cost) == [Timing(kind, 1.0, 7.0, "here"), Timing(kind, 2.0, 14.0, "lab-3")]
    assert learn(found).seconds(task(kind, 3.0)) == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("worker", "node"),
    [("lab-3/local-17-1", "lab-3"), ("tcp://10.0.0.1:99/2:local-17-1", "tcp://10.0.0.1:99"), ("local-17-1", "here")],
)
def test_workers_belong_to_nodes(worker: str, node: str) -> None:
    assert node_of(worker, "here") == node
    assert kind_of(task(("a", "b", "c"))) == ("a", "b", "c")
