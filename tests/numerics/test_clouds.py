"""Clouds of charge: the mesh against a sum over modes, that against Ewald's and against the energy of a pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manybody.numerics.clouds import CloudMesh, cloud_energy
from manybody.numerics.ewald import half_modes, reciprocal_energy

EDGE, WIDTH = 6.0, 0.7


@pytest.fixture
def ions() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(3).uniform(-EDGE, 2 * EDGE, (40, 3)), np.tile([1.0, -1.0], 20)


def test_energy_is_the_smooth_part_of_an_ewald_sum(ions: tuple[np.ndarray, np.ndarray]) -> None:
    """alpha = 1 / 2a; both are summed to where terms are below round-off."""
    positions, charges = (torch.from_numpy(array) for array in ions)
    cell = torch.eye(3, dtype=torch.float64) * EDGE
    modes = torch.from_numpy(half_modes(cell.numpy(), 6 / WIDTH))
    expected = float(reciprocal_energy(positions, charges, cell, 1 / (2 * WIDTH), modes))
    assert cloud_energy(*ions, EDGE, WIDTH, 4 * math.pi, 0.0) == pytest.approx(expected, rel=1e-12)


def test_repulsion_is_a_gaussian() -> None:
    """Two ions near each other in a box of 30 widths: R exp(-r^2 / 4 a^2) / (4 pi a^2)^(3/2), and what each has with itself."""
    far = np.array([[0.0, 0, 0], [0.9, 0.3, 0.0]])
    energy = cloud_energy(far, np.array([1.0, -1.0]), 30 * WIDTH, WIDTH, 0.0, 2.0)
    volume = (4 * math.pi * WIDTH**2) ** 1.5
    # The mean over the box, mode 0, is left out: it is the same at any distance.
    mean = 0.5 * 2.0 * 4 / (30 * WIDTH) ** 3
    assert energy + mean == pytest.approx(2.0 * (1 + math.exp(-0.9 / (4 * WIDTH**2))) / volume, rel=1e-10)


@pytest.mark.parametrize(("repulsion", "error"), [(0.0, 5e-3), (3.0, 2e-2)])
def test_forces_are_the_slope_of_the_energy(ions: tuple[np.ndarray, np.ndarray], repulsion: float, error: float) -> None:
    """To what `RESOLUTION` says of the mesh."""
    positions, charges = ions
    mesh = CloudMesh(40, EDGE, WIDTH, 5.0, repulsion)
    forces, energy = mesh.evaluate(positions, charges)
    typical = math.sqrt(float((forces**2).mean()))
    assert energy == pytest.approx(cloud_energy(*ions, EDGE, WIDTH, 5.0, repulsion), rel=error)
    assert abs(forces.sum(axis=0)).max() < 1e-12
    for ion, axis in ((0, 0), (7, 1), (20, 2)):
        nearby = np.zeros_like(positions)
        nearby[ion, axis] = 1e-4
        ends = [cloud_energy(positions + sign * nearby, charges, EDGE, WIDTH, 5.0, repulsion) for sign in (1, -1)]
        assert forces[ion, axis] == pytest.approx(-(ends[0] - ends[1]) / 2e-4, abs=error * typical)


def test_modes_are_sums_over_ions(ions: tuple[np.ndarray, np.ndarray]) -> None:
    positions, charges = ions
    mesh = CloudMesh(40, EDGE, WIDTH, 1.0)
    density, charge = mesh.modes(positions, charges)
    for m in ((1, 0, 0), (0, 1, 1), (1, -1, 2)):
        phases = np.exp(-2j * math.pi / EDGE * positions @ np.array(m))
        # A mode m mixes with m - points: at most (2 / 6)^6 = 1.4e-3 of sqrt(40), from a few such modes.
        assert abs(density[m] - phases.sum()) < 0.03
        assert abs(charge[m] - charges @ phases) < 0.03
