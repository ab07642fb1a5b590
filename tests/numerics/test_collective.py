"""Collective variables: closed forms, gradients, and what comes round."""

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.collective import Collective
from manybody.numerics.periodic import wrap

EVERY = Collective((("torsion", (3, 1, 0, 4)), ("distance", (2, 4)), ("angle", (4, 0, 2)), ("torsion", (0, 1, 2, 3))))


@pytest.fixture
def x():
    return np.random.default_rng(4).standard_normal((5, 3))


def test_gradients_are_the_derivatives_of_the_formulas(x):
    positions = torch.from_numpy(x).requires_grad_()
    values, gradients = EVERY.look(x)
    expected = EVERY.formula(positions)
    assert values == pytest.approx(expected.detach().numpy(), abs=1e-14)
    for n, atoms in enumerate(EVERY.atoms):
        (slope,) = torch.autograd.grad(expected[n], positions, retain_graph=True)
        own = np.zeros_like(x)
        members = len(EVERY.variables[n][1])
        np.add.at(own, atoms[:members], gradients[n, :members])
        assert own == pytest.approx(slope.numpy(), abs=1e-12)
        assert not gradients[n, members:].any()


def test_gradients_are_finite_differences(x):
    h = 1e-6
    _, gradients = EVERY.look(x)
    for n, (_, atoms) in enumerate(EVERY.variables):
        for m, atom in enumerate(atoms):
            for d in range(3):
                there, back = x.copy(), x.copy()
                there[atom, d] += h
                back[atom, d] -= h
                change = wrap(EVERY.look(there)[0][n] - EVERY.look(back)[0][n]) / (2 * h)
                assert gradients[n, m, d] == pytest.approx(float(change), abs=1e-8)


@pytest.mark.parametrize("phi", [-3.0, -math.pi / 2, -0.1, 0.0, 1.0, 2.0, 3.1])
def test_closed_forms(phi):
    """Atom 0 on the x axis beside the bond along z, atom 3 turned by phi clockwise when looked at along the bond."""
    x = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.5], [math.cos(phi), math.sin(phi), 1.5]])
    some = Collective((("torsion", (0, 1, 2, 3)), ("distance", (1, 2)), ("angle", (0, 1, 2))))
    values, gradients = some.look(x)
    assert values == pytest.approx([phi, 1.5, math.pi / 2], abs=1e-14)
    # Atom 3 is a unit away from the axis: to move it by d along its circle turns phi by d.
    assert gradients[0, 3] == pytest.approx([-math.sin(phi), math.cos(phi), 0], abs=1e-14)
    assert gradients[0].sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-14)
    assert gradients[1, :2] == pytest.approx(np.array([[0, 0, -1], [0, 0, 1]]))


def test_angles_come_round():
    assert wrap(np.array([0.1, math.pi + 0.1, -math.pi - 0.1, 7 * math.pi / 2])) == pytest.approx(
        [0.1, 0.1 - math.pi, math.pi - 0.1, -math.pi / 2]
    )


@pytest.mark.parametrize("atoms", [(0, 1, 2), (0, 1, 2, 2), (0, 1, 2, -1)])
def test_impossible_variables_are_refused(atoms):
    with pytest.raises(InputError, match="4 different atoms"):
        Collective((("torsion", atoms),))
