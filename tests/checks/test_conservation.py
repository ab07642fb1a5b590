"""The conservation check."""

import math

import numpy as np
import pytest

from manybody.checks.conservation import Conservation
from manybody.core.certificate import Verdict
from manybody.testing.check import verify_check


@pytest.mark.parametrize(
    "wrong", [{"drift": 2e-4}, {"drift": -2e-4}, {"momentum": 1e-6}, {"momentum": math.nan}, {"drift": math.inf}]
)
def test_contract(evidence, wrong) -> None:
    with np.errstate(invalid="ignore"):
        verify_check(Conservation(), evidence("conservation"), evidence("conservation", **wrong))


def test_value_is_the_drift_that_is_there(evidence) -> None:
    energy, momentum = Conservation().judge(evidence("conservation", drift=5e-5), ())
    assert energy.value == pytest.approx(5e-5, abs=1e-7)
    assert energy.verdict is Verdict.HOLDS
    assert momentum.value == 0.0
    assert set(energy.evidence["points"]) == {"density 0.776", "density 0.82"}
