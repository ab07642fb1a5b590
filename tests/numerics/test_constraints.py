"""Rigid bonds: both methods agree, nothing is pushed from outside, and what cannot be kept is said."""

import numpy as np
import pytest

from manybody.core.errors import InputError
from manybody.numerics.constraints import ConstraintError, Constraints

LEG, BASE = 0.1, 0.163
MOLECULES = 40


@pytest.fixture
def waters():
    """Rigid molecules, where they would drift to in a step of 2 fs at 300 K, and their velocities."""
    rng = np.random.default_rng(5)
    height = np.sqrt(LEG**2 - BASE**2 / 4)
    shape = np.array([[0, 0, 0], [BASE / 2, height, 0], [-BASE / 2, height, 0]])
    turns = np.linalg.qr(rng.normal(size=(MOLECULES, 3, 3)))[0]
    before = (shape @ turns + rng.uniform(0, 3, (MOLECULES, 1, 3))).reshape(-1, 3)
    masses = np.tile([15.999, 1.008, 1.008], MOLECULES)
    velocities = rng.normal(size=before.shape) * np.sqrt(2.5 / masses)[:, None]
    return before, before + 0.002 * velocities, velocities, masses


def as_water(masses):
    atoms, nothing = np.arange(3 * MOLECULES).reshape(-1, 3), np.empty(0)
    return Constraints(masses, atoms, np.full(MOLECULES, LEG), np.full(MOLECULES, BASE), np.empty((0, 2), np.int64), nothing)


def as_bonds(masses):
    atoms, nothing = np.arange(3 * MOLECULES).reshape(-1, 3), np.empty(0)
    bonds = atoms[:, [[0, 1], [0, 2], [1, 2]]].reshape(-1, 2)
    return Constraints(masses, np.empty((0, 3), np.int64), nothing, nothing, bonds, np.tile([LEG, LEG, BASE], MOLECULES))


def test_closed_form_and_iteration_agree(waters):
    before, after, velocities, masses = waters
    found = []
    for constraints in (as_water(masses), as_bonds(masses)):
        x, v = after.copy(), velocities.copy()
        constraints.place(before, x)
        constraints.steer(x, v)
        assert constraints.count == 3 * MOLECULES
        assert constraints.violation(x) < 1e-12
        found.append((x, v))
    assert np.abs(found[0][0] - found[1][0]).max() < 1e-12  # nm
    assert np.abs(found[0][1] - found[1][1]).max() < 1e-10  # nm / ps


@pytest.mark.parametrize("kind", [as_water, as_bonds])
def test_neither_momentum_nor_rotation_comes_from_rigid_bonds(waters, kind):
    before, after, velocities, masses = waters
    x, v = after.copy(), velocities.copy()
    kind(masses).place(before, x)
    push = masses[:, None] * (x - after)
    assert np.abs(push.sum(axis=0)).max() < 1e-12  # round-off of positions of nm
    assert np.abs(np.cross(before, push).sum(axis=0)).max() < 1e-12
    kind(masses).steer(x, v)
    push = masses[:, None] * (v - velocities)
    assert np.abs(push.sum(axis=0)).max() < 1e-10
    assert np.abs(np.cross(x, push).sum(axis=0)).max() < 1e-10


@pytest.mark.parametrize("kind", [as_water, as_bonds])
def test_what_is_satisfied_is_left_alone(waters, kind):
    before, _, velocities, masses = waters
    constraints, x, v = kind(masses), before.copy(), velocities.copy()
    constraints.place(before, x)
    assert np.abs(x - before).max() < 1e-14
    constraints.steer(x, v)
    again = v.copy()
    constraints.steer(x, again)
    assert np.abs(again - v).max() < 1e-11


@pytest.mark.parametrize("kind", [as_water, as_bonds])
def test_a_molecule_torn_apart_is_named(waters, kind):
    before, after, _, masses = waters
    after[7] += 0.5
    with pytest.raises(ConstraintError) as caught:
        kind(masses).place(before, after)
    assert {caught.value.atom, caught.value.partner} <= {6, 7, 8}


def test_positions_that_are_no_numbers_are_noticed(waters):
    before, after, _, masses = waters
    after[3] = np.nan
    for kind in (as_water, as_bonds):
        with pytest.raises(ConstraintError):
            kind(masses).place(before, after.copy())


def test_water_with_unlike_ends_is_refused():
    with pytest.raises(InputError, match="two equal masses"):
        Constraints(
            np.array([16.0, 1.0, 2.0]),
            np.array([[0, 1, 2]]),
            np.array([0.1]),
            np.array([0.16]),
            np.empty((0, 2), np.int64),
            np.empty(0),
        )
