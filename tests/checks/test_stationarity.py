"""The stationarity check."""

import pytest

from manybody.checks.stationarity import Stationarity
from manybody.testing.check import verify_check


@pytest.mark.parametrize("trend", [0.02, -0.02])
def test_contract(evidence, trend) -> None:
    verify_check(Stationarity(), evidence("stationarity"), evidence("stationarity", trend=trend))


def test_threshold_covers_the_whole_family(evidence) -> None:
    found = Stationarity().judge(evidence("stationarity"), ())
    # 2 points x 2 measures: each may show more than 3 standard errors.
    assert [finding.tolerance for finding in found] == [pytest.approx(3.40, abs=0.01)] * 2
