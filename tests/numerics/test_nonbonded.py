"""Lennard-Jones and cut Coulomb forces: kernels against differentiated formulas; mixing, switch and corrections."""

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.lattice_list import lattice_list
from manybody.numerics.nonbonded import (
    COULOMB,
    CutPairs,
    ListedPairs,
    listed_pairs,
    long_range_correction,
    lorentz_berthelot,
    reaction_field,
    switch,
)

BOX, CUTOFF = 2.0, 0.9
NOTHING = ListedPairs(np.empty((0, 2), np.int64), *np.empty((3, 0)))


@pytest.fixture
def liquid():
    """Three species near the sites of a lattice, one of them without Lennard-Jones."""
    rng = np.random.default_rng(3)
    sites = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * BOX / 5 + 0.2
    x = sites + rng.uniform(-0.05, 0.05, sites.shape) + rng.integers(-2, 3, sites.shape) * BOX
    species = rng.integers(0, 3, len(x))
    tables = lorentz_berthelot(np.array([0.3, 0.25, 0.0]), np.array([0.7, 0.2, 0.0]))
    excluded = np.array([[n, n + 1] for n in range(0, 100, 5)])
    return x, species, rng.normal(size=len(x)), tables, excluded


@pytest.mark.parametrize("begin", [0.7, CUTOFF])
@pytest.mark.parametrize("charged", [True, False])
def test_forces_are_the_derivatives_of_the_formula(liquid, begin, charged):
    x, species, charges, (c12, c6), excluded = liquid
    x = x % BOX  # so that the pairs left out are whole
    pairs = CutPairs(species, charges * charged, c12, c6, begin, CUTOFF, 5.0)
    i, j = excluded.T
    left_out = ListedPairs(
        excluded, COULOMB * charged * charges[i] * charges[j], c12[species[i], species[j]], c6[species[i], species[j]]
    )
    members, forces = pairs.members, np.zeros_like(x)
    near = lattice_list(x[members], BOX * np.eye(3), CUTOFF, 0.1)
    found = pairs.add_forces(x, members, near, left_out, forces)
    positions, box = torch.tensor(x, requires_grad=True), torch.full((3,), BOX, dtype=torch.float64, requires_grad=True)
    lennard_jones, coulomb = pairs.energy(positions, box, left_out)
    (gradient,) = torch.autograd.grad(lennard_jones + coulomb, positions)
    assert found[:2] == pytest.approx((lennard_jones.item(), coulomb.item()), rel=1e-10, abs=1e-9)
    assert np.abs(forces + gradient.numpy()).max() < 1e-10 * np.abs(forces).max()
    assert (len(members) < len(x)) is not charged


def test_the_virial_is_the_change_of_the_energy_with_the_size(liquid):
    x, species, charges, (c12, c6), _ = liquid
    pairs = CutPairs(species, charges, c12, c6, 0.7, CUTOFF, math.inf)

    def energy(factor):
        wide = pairs.__class__(species, charges, c12, c6, 0.7, CUTOFF, math.inf)
        near = lattice_list(factor * x, factor * BOX * np.eye(3), CUTOFF, 0.1)
        return wide.add_forces(factor * x, wide.members, near, NOTHING, np.zeros_like(x))

    h = 1e-5
    slope = (sum(energy(1 + h)[:2]) - sum(energy(1 - h)[:2])) / (2 * h)
    # a charge that crosses the cutoff costs nothing with a conductor beyond: energy and virial belong together
    assert -slope == pytest.approx(energy(1.0)[2], rel=1e-4)


def test_positions_outside_the_box_and_listed_twice_as_far_change_nothing(liquid):
    x, species, charges, (c12, c6), _ = liquid
    pairs = CutPairs(species, charges, c12, c6, 0.7, CUTOFF)
    found = []
    for where, skin in ((x, 0.0), (x % BOX, 0.15)):
        forces = np.zeros_like(x)
        near = lattice_list(where, BOX * np.eye(3), CUTOFF, skin)
        found.append((pairs.add_forces(where, pairs.members, near, NOTHING, forces), forces))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert np.abs(found[0][1] - found[1][1]).max() < 1e-9


def test_mixing_follows_lorentz_and_berthelot():
    c12, c6 = lorentz_berthelot(np.array([0.3, 0.2]), np.array([1.0, 0.25]))
    sigma, epsilon = 0.25, 0.5
    assert c12[0, 1] == pytest.approx(4 * epsilon * sigma**12)
    assert c6[1, 0] == pytest.approx(4 * epsilon * sigma**6)


def test_the_switch_is_smooth_at_both_ends():
    r = torch.tensor([0.7, 0.9], dtype=torch.float64, requires_grad=True)
    value = switch(r, 0.7, 0.9)
    (slope,) = torch.autograd.grad(value.sum(), r)
    assert value.tolist() == pytest.approx([1, 0], abs=1e-12)
    assert slope.tolist() == pytest.approx([0, 0], abs=1e-12)


def test_a_reaction_field_of_a_conductor_has_no_force_at_the_cutoff():
    k, c = reaction_field(math.inf, 0.9)
    assert 1 / 0.9**2 - 2 * k * 0.9 == pytest.approx(0, abs=1e-12)
    assert 1 / 0.9 + k * 0.9**2 - c == pytest.approx(0, abs=1e-12)
    assert reaction_field(1.0, 0.9)[0] == 0


@pytest.mark.parametrize("begin", [0.7, 0.9])
def test_the_long_range_correction_is_the_integral_of_what_is_left_out(begin):
    from scipy.integrate import quad

    c12, c6 = lorentz_berthelot(np.array([0.3]), np.array([0.7]))

    def lost(r):
        kept = switch(torch.tensor([r], dtype=torch.float64), begin, 0.9).item() if r < 0.9 else 0.0
        return 2 * math.pi * 50**2 * (c12[0, 0] / r**12 - c6[0, 0] / r**6) * (1 - kept)

    energy = (
        quad(lambda r: lost(r) * r**2, begin, 0.9, epsabs=1e-12)[0]
        + quad(lambda r: lost(r) * r**2, 0.9, math.inf, epsabs=1e-12)[0]
    )
    edge = 0.0 if begin < 0.9 else lost(0.9 + 1e-12) * 0.9**3
    assert long_range_correction(np.array([50.0]), c12, c6, begin, 0.9) == pytest.approx((energy, 3 * energy + edge), rel=1e-7)


def test_listed_pairs_follow_coulomb_and_lennard_jones():
    x = np.array([[0, 0, 0], [0.3, 0, 0.1], [0, 0.4, 0]])
    pairs = ListedPairs(np.array([[0, 1], [1, 2]]), np.array([5.0, -3.0]), np.array([1e-6, 2e-6]), np.array([1e-3, 3e-3]))
    forces = np.zeros_like(x)
    found = listed_pairs(x, pairs.atoms, pairs.products, pairs.c12, pairs.c6, 1e9, 1e9, 0.0, 0.0, forces, 1.0)
    positions = torch.tensor(x, requires_grad=True)
    energies = pairs.energy(positions)
    (gradient,) = torch.autograd.grad(sum(energies), positions)
    assert found[:2] == pytest.approx([energy.item() for energy in energies])
    assert np.abs(forces + gradient.numpy()).max() < 1e-10
    assert found[2] == pytest.approx((x * forces).sum())


def test_pairs_with_parameters_missing_are_refused():
    with pytest.raises(InputError, match="one parameter a pair"):
        ListedPairs(np.zeros((2, 2), np.int64), np.zeros(2), np.zeros(1), np.zeros(2))
