"""The convergence check."""

import pytest

from manybody.checks.convergence import ConvergenceOrder
from manybody.testing.check import verify_check


@pytest.mark.parametrize("order", [0.0, 1.0, 3.0])
def test_contract(evidence, order) -> None:
    verify_check(ConvergenceOrder(), evidence("convergence"), evidence("convergence", order=order))


def test_observed_order_is_the_one_that_is_there(evidence) -> None:
    check = ConvergenceOrder(tolerance=0.4)
    measured = evidence("convergence", order=1.8)
    (finding,) = check.judge(measured, check.tasks(measured.plan))
    # log2 of a ratio of two numbers known to 0.5 % each, for two points.
    assert finding.value == pytest.approx(-0.2, abs=3 * 0.005 / 0.693)


def test_twins_start_where_the_first_run_of_each_point_ended(evidence) -> None:
    plan = evidence("convergence").plan
    tasks = ConvergenceOrder().tasks(plan)
    assert len(tasks) == 4
    assert tasks[0].inputs == tasks[1].inputs == {"state": plan.realisations[0].tasks[-1].digest}
    assert tasks[0].parameters["time_step"] == 2 * tasks[1].parameters["time_step"]
    assert tasks[0].parameters["thermostat"] == "none"
