"""The extrapolation check: where its lines end, and what it says where there are none.

That it holds and fails where it should is shown with driven electrolytes, whose theory is exact in a limit.
"""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.checks.extrapolation import Extrapolation, intercept
from manybody.core.certificate import Verdict


def test_a_line_through_two_points_ends_where_it_should() -> None:
    """2 y(1) - y(2), with the error of that sum."""
    end, error = intercept(np.array([1.0, 2.0]), np.array([0.5, 0.7]), np.array([0.1, 0.3]))
    assert end == pytest.approx(0.3)
    assert error == pytest.approx(math.hypot(2 * 0.1, 0.3))


def test_a_line_through_many_points_is_that_of_least_squares() -> None:
    """A coarse third point counts little; on a straight line it does not move the end."""
    x = np.array([1.0, 2.0, 4.0])
    end, error = intercept(x, 0.2 + 0.3 * x, np.array([0.1, 0.1, 1e6]))
    assert end == pytest.approx(0.2)
    assert error == pytest.approx(math.hypot(0.2, 0.1), rel=1e-6)


def test_values_without_errors_end_nowhere() -> None:
    assert all(math.isnan(value) for value in intercept(np.array([1.0, 2.0]), np.zeros(2), np.array([0.0, 1.0])))


def test_without_closed_forms_or_lines_it_is_undecided(evidence) -> None:
    for path in ("system.density", "system.temperature"):
        (finding,) = Extrapolation(path=path).judge(evidence({"name": "extrapolation", "path": path}), ())
        assert finding.verdict is Verdict.UNDECIDED


def test_a_path_leads_into_the_system_or_the_method() -> None:
    with pytest.raises(ValidationError, match="path"):
        Extrapolation(path="coupling")
