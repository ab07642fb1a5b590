"""Hills on a grid and restraints: the sums that they stand for."""

import math

import numpy as np
import pytest
import torch

from manybody.numerics.bias import add_hill, empty_grid, hills_energy, node_count, offset, read_hills

WIDTH = 0.35


@pytest.fixture(scope="module", params=[1, 2])
def piled(request):
    """Hills [hills, torsions + 1] and the grid that they were added to."""
    generator, torsions = np.random.default_rng(1), request.param
    hills = np.concatenate([generator.uniform(-math.pi, math.pi, (40, torsions)), generator.uniform(0.1, 2, (40, 1))], axis=1)
    grid = empty_grid(torsions, node_count(WIDTH))
    for hill in hills:
        add_hill(grid, np.array([*hill[:-1], 0.0])[:2], hill[-1], WIDTH)
    return torsions, hills, grid


def read(grid, angles):
    slope = np.empty(2)
    value = read_hills(grid, np.array([*angles, 0.0])[:2], slope)
    return value, slope[: len(angles)]


def summed(hills, angles):
    return float(hills_energy(torch.tensor(np.array(angles)), torch.from_numpy(hills), WIDTH))


def test_nodes_hold_the_sum_of_the_hills(piled):
    torsions, hills, grid = piled
    nodes = grid.shape[0]
    for node in ((0,) * torsions, (7, 50)[:torsions], (nodes - 1,) * torsions):
        angles = [2 * math.pi * n / nodes for n in node]
        assert read(grid, angles)[0] == pytest.approx(summed(hills, angles), abs=1e-12)


def test_between_nodes_the_polynomial_is_as_close_as_promised(piled):
    torsions, hills, grid = piled
    step = 2 * math.pi / grid.shape[0]
    bound = torsions * 4 / 384 * (step / WIDTH) ** 4 * hills[:, -1].sum()  # 4 is above the fourth derivative, 3 at the top
    angles = np.random.default_rng(2).uniform(-4, 7, (100, torsions))
    errors = [abs(read(grid, some)[0] - summed(hills, some)) for some in angles]
    assert max(errors) < bound
    assert bound < 1e-4 * hills[:, -1].sum()


def test_forces_are_the_derivative_of_what_is_read(piled):
    torsions, _, grid = piled
    h = 1e-6
    for angles in np.random.default_rng(3).uniform(-math.pi, math.pi, (20, torsions)):
        _, slope = read(grid, angles)
        for n in range(torsions):
            there, back = angles.copy(), angles.copy()
            there[n] += h
            back[n] -= h
            assert slope[n] == pytest.approx((read(grid, there)[0] - read(grid, back)[0]) / (2 * h), abs=1e-6)


def test_a_turn_changes_nothing(piled):
    torsions, _, grid = piled
    here = [1.3, -2.9][:torsions]
    value, slope = read(grid, here)
    there, slope_there = read(grid, [angle + 2 * math.pi * turn for angle, turn in zip(here, (1, -2), strict=False)])
    assert there == pytest.approx(value, abs=1e-12)
    assert slope_there == pytest.approx(slope, abs=1e-11)


def test_the_offset_of_a_bias_that_is_the_same_everywhere_is_that_bias():
    assert offset(np.full((9, 9), 3.7), 2.5, 8.0) == pytest.approx(3.7)
    # A bias that has converged, V = -(1 - 1/gamma) F: c(t) = kT log(int exp(-F / kT) / int exp(-F / (gamma kT))).
    free, kT, gamma = np.random.default_rng(5).uniform(0, 30, (8, 8)), 2.5, 6.0
    expected = kT * math.log(np.exp(-free / kT).sum() / np.exp(-free / (gamma * kT)).sum())
    assert offset(-(1 - 1 / gamma) * free, kT, gamma) == pytest.approx(expected)
