"""The replication check."""

import pytest

from manybody.checks.replication import Replication
from manybody.testing.check import verify_check


@pytest.mark.parametrize("wrong", [{"replica_differs": True}, {"same_worker": True}])
def test_contract(evidence, wrong) -> None:
    verify_check(Replication(), evidence("replication"), evidence("replication", **wrong))


def test_drawn_tasks_are_different_ones_and_follow_the_seed(evidence) -> None:
    plan = evidence({"name": "replication", "count": 5}).plan
    tasks = Replication(count=5).tasks(plan)
    assert len({task.digest for task in tasks}) == 5
    assert all(task.replica == 1 for task in tasks)
    assert len(Replication(count=1000).tasks(plan)) == len([task for run in plan.realisations for task in run.tasks])


def test_chance_of_an_escape_is_said(evidence) -> None:
    measured = evidence({"name": "replication", "count": 3})
    check = Replication(count=3)
    (finding,) = check.judge(measured, check.tasks(measured.plan))
    assert finding.evidence["chance that one wrong task escapes"] == pytest.approx(1 - 3 / 12)
