"""Blocking, trends and thresholds, against processes whose errors are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.random import Key
from manybody.numerics.statistics import block_error, family_threshold, linear_drift, trend


def autoregressive(key: Key, samples: int, memory: float) -> np.ndarray:
    """x_t = a x_{t-1} + noise, of unit variance: the mean of n has variance (1 + a) / (1 - a) / n."""
    noise = key.generator().standard_normal(samples) * math.sqrt(1 - memory**2)
    series = np.empty(samples)
    series[0] = noise[0] / math.sqrt(1 - memory**2)
    for index in range(1, samples):
        series[index] = memory * series[index - 1] + noise[index]
    return series


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_error_of_an_autoregressive_process(memory: float) -> None:
    runs = [autoregressive(Key.from_seed(5, run), 20_000, memory) for run in range(4)]
    mean = np.mean([run.mean() for run in runs])
    blocked = block_error([run - mean for run in runs])
    exact = math.sqrt((1 + memory) / (1 - memory) / 80_000)
    # An error from B blocks scatters by 1/sqrt(2 B) of itself; three deviations, and 5 % for the blocks' finite length.
    assert float(blocked.error) == pytest.approx(exact, rel=3 / math.sqrt(2 * blocked.blocks) + 0.05)
    assert blocked.inefficiency == pytest.approx((1 + memory) / (1 - memory), rel=6 / math.sqrt(2 * blocked.blocks) + 0.1)


def test_naive_errors_would_be_too_small() -> None:
    run = autoregressive(Key.from_seed(6), 20_000, 0.9)
    naive = run.std() / math.sqrt(len(run))
    assert float(block_error([run - run.mean()]).error) > 3 * naive


def test_error_bars_cover_as_often_as_they_should() -> None:
    inside = 0
    for trial in range(400):
        run = autoregressive(Key.from_seed(8, trial), 2000, 0.8)
        inside += abs(run.mean()) < float(block_error([run - run.mean()]).error)
    # 68.3 % of 400, with 3 binomial deviations and 4 % for errors that rest on few blocks.
    assert abs(inside / 400 - 0.683) < 3 * math.sqrt(0.683 * 0.317 / 400) + 0.04


def test_curves_get_an_error_for_each_bin() -> None:
    curve = Key.from_seed(9).generator().standard_normal((1000, 3)) * np.array([1.0, 2.0, 0.0])
    blocked = block_error([curve - curve.mean(axis=0)])
    assert blocked.error.shape == (3,)
    assert blocked.error[1] == pytest.approx(2 / math.sqrt(1000), rel=0.3)
    assert blocked.error[2] == 0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        block_error([np.zeros(1)])


def test_trends_of_noise_are_standard_normal_and_real_ones_are_found() -> None:
    deviates = []
    for trial in range(300):
        run = autoregressive(Key.from_seed(10, trial), 2000, 0.5)
        deviates.append(trend([run - run.mean()], 3.0))  # (1 + a) / (1 - a) = 3
    assert np.mean(deviates) == pytest.approx(0, abs=3 / math.sqrt(300))
    assert np.std(deviates) == pytest.approx(1, abs=3 / math.sqrt(600))
    ramp = np.linspace(-0.5, 0.5, 2000)
    assert trend([run - run.mean() + ramp], 3.0) > 5


@settings(max_examples=25)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_drift_of_a_straight_line_is_its_slope(slope: float, start: float) -> None:
    time = np.linspace(0, 10, 50)
    assert linear_drift(time, start + slope * time) == pytest.approx(slope, abs=1e-9 * (1 + abs(start) + abs(slope)))


def test_thresholds_for_families_of_tests() -> None:
    assert family_threshold(3.0, 1) == pytest.approx(3.0, rel=1e-9)
    # Two-sided 0.27 % over 8 tests is 0.0338 % each: 3.58 deviations.
    assert family_threshold(3.0, 8) == pytest.approx(3.585, abs=0.005)


def test_nan_is_not_hidden() -> None:
    assert math.isnan(linear_drift(np.arange(3.0), np.array([0.0, math.nan, 1.0])))
