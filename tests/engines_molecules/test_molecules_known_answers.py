"""The models of water are those of their papers."""

import numpy as np
import pytest

from manybody.core.random import Key
from manybody.engines.molecules.known_answers import DEBYE, dipole, energy_spread
from manybody.engines.molecules.water import MODELS, water_lattice, water_topology


@pytest.mark.parametrize(("model", "published"), [("spce", 2.351), ("tip3p", 2.347)])
def test_water_has_its_published_dipole_moment(model, published):
    water = MODELS[model]
    assert dipole(water.bond, water.angle, water.charge) == pytest.approx(published, abs=6e-4)
    topology, x = water_topology(model, 27), water_lattice(model, 27, 0.93, Key.from_seed(1))
    moments = (topology.charges[:, None] * x).reshape(27, 3, 3).sum(axis=1)
    assert np.linalg.norm(moments, axis=1) / DEBYE == pytest.approx(np.full(27, published), abs=6e-4)
    assert topology.constraints.violation(x) < 1e-12


def test_a_kinetic_energy_spreads_as_a_sum_of_squares():
    samples = np.random.default_rng(4).chisquare(30, 20_000)
    assert np.std(samples) / np.mean(samples) == pytest.approx(energy_spread(30), rel=0.03)
