"""Values and errors from weighted, correlated samples of several runs."""

import math

import numpy as np
import pytest

from manybody.core.protocols import Samples
from manybody.core.random import Key
from manybody.study.measure import estimate


def run(values: np.ndarray, weights: np.ndarray | None = None) -> Samples:
    return Samples(values, np.ones(len(values)) if weights is None else weights, interval=0.1)


def test_plain_mean_and_error() -> None:
    rng = Key.from_seed(1).generator()
    runs = [run(rng.normal(3.0, 2.0, 5000)) for _ in range(4)]
    found = estimate(runs)
    exact = 2.0 / math.sqrt(20_000)
    assert found.error == pytest.approx(exact, rel=0.15)
    assert abs(found.value - 3.0) < 4 * exact
    assert found.samples == 20_000
    assert len(found.runs) == len(found.run_errors) == 4
    assert np.mean(found.runs) == pytest.approx(found.value, rel=1e-12)


def test_reweighting_reaches_the_other_ensemble() -> None:
    """Samples of a unit normal, weighted by exp(a x), have mean a and, for n samples, a known error."""
    rng = Key.from_seed(2).generator()
    shift = 0.5
    draws = [rng.standard_normal(20_000) for _ in range(3)]
    found = estimate([run(x, np.exp(shift * x)) for x in draws])
    # Variance of the linearised mean: <w^2 (x - a)^2> / <w>^2 = e^(a^2) (1 + a^2) for exponential tilting.
    exact = math.sqrt(math.exp(shift**2) * (1 + shift**2) / 60_000)
    assert found.error == pytest.approx(exact, rel=0.1)
    assert abs(found.value - shift) < 4 * exact


def test_curves_have_a_value_and_an_error_in_each_bin() -> None:
    rng = Key.from_seed(3).generator()
    curve = rng.standard_normal((4000, 5)) + np.arange(5)
    found = estimate([Samples(curve, np.ones(4000), 0.1, axis=np.arange(5.0))])
    assert found.value.shape == found.error.shape == (5,)
    assert np.all(np.abs(found.value - np.arange(5)) < 4 * found.error)
    assert found.runs == ()


def test_runs_of_different_length_count_by_their_samples() -> None:
    found = estimate([run(np.full(100, 1.0)), run(np.full(300, 2.0))])
    assert found.value == pytest.approx(1.75, rel=1e-12)
