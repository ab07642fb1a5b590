"""Noise by name: moments, tails, and no correlation between neighbouring names."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from manybody.numerics.jit import exact_kernel
from manybody.numerics.pair_noise import EDGES, TAIL, mixed, normal


@exact_kernel
def numbers(first: int, count: int) -> np.ndarray:
    """One normal number for each of `count` words from `first` on."""
    found = np.empty(count)
    for k in range(count):
        found[k] = normal(mixed(np.uint64(first + k)))
    return found


def test_layers_have_equal_areas_and_close_at_the_top():
    heights = np.exp(-0.5 * EDGES**2)
    areas = EDGES[1:-1] * np.diff(heights)[1:]
    np.testing.assert_allclose(areas, EDGES[0] * heights[1], rtol=1e-9)


def test_numbers_are_normal_also_in_the_tail():
    """Moments to four standard errors, the whole distribution by Kolmogorov and Smirnov, and how many are in the tail."""
    noise = numbers(1, 400_000)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (noise**power).mean() == pytest.approx(moment, abs=4 * math.sqrt(spread / len(noise)))
    assert kstest(noise, "norm").pvalue > 1e-4
    expected = len(noise) * math.erfc(TAIL / math.sqrt(2))
    assert (np.abs(noise) > TAIL).sum() == pytest.approx(expected, abs=4 * math.sqrt(expected))


def test_neighbouring_names_do_not_correlate():
    noise = numbers(77, 100_000)
    for lag in (1, 2, 256):
        assert (noise[lag:] * noise[:-lag]).mean() == pytest.approx(0, abs=4 / math.sqrt(len(noise)))
