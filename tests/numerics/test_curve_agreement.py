"""Whether two curves agree: as often as chance says, though their values are not independent."""

import math

import numpy as np
import pytest

from manybody.numerics.agreement import compare_curves

BINS, LENGTH = 60, 8.0
APART = np.abs(np.subtract.outer(np.arange(BINS), np.arange(BINS)))
ROOT = np.linalg.cholesky(np.exp(-APART / LENGTH) + 1e-10 * np.eye(BINS))


def samples(generator, count, spread=1.0):
    return spread * generator.standard_normal((count, BINS)) @ ROOT.T


def test_equal_curves_differ_by_chance_alone():
    generator = np.random.default_rng(3)
    found = [compare_curves([samples(generator, 16)], [samples(generator, 24, 1.7)]) for _ in range(500)]
    deviates = np.array([each.deviate for each in found])
    # 500 draws of a tail of 2.3 %: 11 with a standard deviation of 3.
    assert 2 <= (deviates > 2).sum() <= 23
    effective = BINS**2 / (np.exp(-APART / LENGTH) ** 2).sum()
    assert np.mean([each.effective for each in found]) == pytest.approx(effective, rel=0.25)


def test_a_shift_is_noticed_and_closeness_is_no_fault():
    generator = np.random.default_rng(4)
    first, second = samples(generator, 20), samples(generator, 20)
    apart = compare_curves([first], [second + 2.0])
    assert apart.excess > 5
    same = compare_curves([first], [first])
    assert same.deviate < -2
    assert same.excess == 0


def test_only_bins_that_both_have_are_compared():
    generator = np.random.default_rng(5)
    first, second = samples(generator, 8), samples(generator, 8)
    first[3, :10], second[:, 55:] = np.nan, np.inf
    assert compare_curves([first[:4], first[4:]], [second]).bins == BINS - 15
    assert math.isnan(compare_curves([np.full((4, 3), np.nan)], [np.ones((4, 3))]).excess)
