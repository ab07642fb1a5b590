"""Bonded terms: kernels against differentiated formulas, and what the formulas must give."""

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.bonded import SIZES, BondedTerms, angle, dihedral

ATOMS, TERMS = 12, 20


def random_parameters(form, rng):
    low, high = {
        "harmonic-bond": ([1, 0.5], [5, 1]),
        "fene-bond": ([1, 6], [5, 9]),
        "harmonic-angle": ([1, 1], [5, 2.5]),
        "periodic-torsion": ([1, 1, 0], [5, 6, 3]),
        "ryckaert-bellemans": ([-3] * 6, [3] * 6),
        "harmonic-improper": ([1, -3], [5, 3]),
        "morse-bond": ([1, 0.5, 0.5], [5, 1.5, 1.5]),
    }[form]
    return rng.uniform(low, high, (TERMS, len(low)))


@pytest.mark.parametrize("form", SIZES)
def test_forces_are_the_derivatives_of_the_formula(form):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(ATOMS, 3))
    atoms = np.array([rng.permutation(ATOMS)[: SIZES[form][0]] for _ in range(TERMS)])
    terms = BondedTerms(form, atoms, random_parameters(form, rng))
    forces = np.zeros_like(x)
    energy = terms.add_forces(x, forces)
    positions = torch.tensor(x, requires_grad=True)
    expected = terms.energy(positions)
    (gradient,) = torch.autograd.grad(expected, positions)
    assert energy == pytest.approx(expected.item(), rel=1e-12)
    assert np.abs(forces + gradient.numpy()).max() < 1e-12 * np.abs(forces).max()
    assert np.abs(forces.sum(axis=0)).max() < 1e-12 * np.abs(forces).max()
    assert np.abs(np.cross(x, forces).sum(axis=0)).max() < 1e-11 * np.abs(forces).max()
    stretch = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (virial,) = torch.autograd.grad(terms.energy(stretch * positions.detach()), stretch)
    # Angles do not change when everything grows: their virial is zero to round-off.
    assert (x * forces).sum() == pytest.approx(-virial.item(), rel=1e-11, abs=1e-11 * np.abs(x * forces).sum())


def test_a_dihedral_is_pi_for_trans_and_positive_for_a_right_handed_turn():
    def turned(phi):
        outer = [math.cos(phi), math.sin(phi), 1.0]
        return torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], outer]], dtype=torch.float64)

    assert dihedral(turned(math.pi)).item() == pytest.approx(math.pi)
    assert dihedral(turned(0.7)).item() == pytest.approx(0.7)
    assert dihedral(turned(-2.0)).item() == pytest.approx(-2.0)
    corner = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 2.0, 0]]], dtype=torch.float64)
    assert angle(corner).item() == pytest.approx(math.pi / 2)


def test_a_torn_fene_bond_has_no_number_for_an_energy():
    terms = BondedTerms("fene-bond", np.array([[0, 1]]), np.array([[30.0, 1.5]]))
    assert math.isnan(terms.add_forces(np.array([[0, 0, 0], [1.6, 0, 0]]), np.zeros((2, 3))))


def test_a_morse_bond_has_its_depth_far_away_and_its_curvature_at_the_bottom():
    depth, a, r0, h = 300.0, 18.0, 0.13, 1e-4

    def at(r):
        terms = BondedTerms("morse-bond", np.array([[0, 1]]), np.array([[depth, a, r0]]))
        return terms.add_forces(np.array([[0, 0, 0], [r, 0, 0]], dtype=float), np.zeros((2, 3)))

    assert at(r0) == 0
    assert at(3.0) == pytest.approx(depth, rel=1e-12)
    # The curvature is k = 2 depth a^2; a second difference adds h^2/12 times the fourth derivative, 7 a^2 k.
    assert (at(r0 + h) + at(r0 - h)) / h**2 == pytest.approx(2 * depth * a**2, rel=2 * h**2 * 7 * a**2 / 12)


def test_a_straight_angle_has_a_finite_force():
    terms = BondedTerms("harmonic-angle", np.array([[0, 1, 2]]), np.array([[30.0, math.pi]]))
    forces = np.zeros((3, 3))
    assert terms.add_forces(np.array([[-1.0, 0, 0], [0, 0, 0], [1.0, 0, 0]]), forces) == 0
    assert np.isfinite(forces).all()


def test_terms_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match=r"parameters \[terms, 3\]"):
        BondedTerms("periodic-torsion", np.zeros((2, 4), np.int64), np.zeros((2, 2)))
