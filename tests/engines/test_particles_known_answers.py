"""The closed forms against quadrature, direct sums and published values."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from manybody.engines.particles import known_answers as known


def test_tails_are_their_integrals():
    """U/N = 2 pi rho int u r^2, p = -2/3 pi rho^2 int u' r^3, from the cutoff on."""
    energy = 2 * math.pi * 0.8 * quad(lambda r: known.pair_energy(r) * r**2, 2.5, np.inf)[0]
    pressure = 2 / 3 * math.pi * 0.8**2 * quad(lambda r: known.pair_force(r) * r**3, 2.5, np.inf)[0]
    assert known.energy_tail(0.8, 2.5) == pytest.approx(energy, rel=1e-10)
    assert known.pressure_tail(0.8, 2.5) == pytest.approx(pressure, rel=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_second_virial_is_its_integral(temperature):
    inner = quad(lambda r: (math.exp(-known.pair_energy(r) / temperature) - 1) * r**2, 0.05, 3, epsabs=1e-12, limit=400)[0]
    outer = quad(lambda r: math.expm1(-known.pair_energy(r) / temperature) * r**2, 3, np.inf, epsabs=1e-13)[0]
    core = -(0.05**3) / 3  # exp(-u/T) is zero there
    assert known.second_virial(temperature) == pytest.approx(-2 * math.pi * (core + inner + outer), rel=1e-7)


def test_second_virial_vanishes_at_the_boyle_temperature():
    assert known.second_virial(known.BOYLE_TEMPERATURE) == pytest.approx(0.0, abs=1e-6)


def test_lattice_sums():
    reach = np.arange(-14, 15)
    sites = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    squares = (sites[sites.sum(axis=1) % 2 == 0] ** 2).sum(axis=1) / 2  # in nearest distances
    squares = squares[(squares > 0) & (squares <= 14**2 / 2)].astype(float)
    rest = math.sqrt(2) * 4 * math.pi  # sites beyond R: density sqrt(2), each r^-n
    radius = 14 / math.sqrt(2)
    assert (squares**-6).sum() + rest * radius**-9 / 9 == pytest.approx(known.FCC_SUM_12, rel=1e-8)
    assert (squares**-3).sum() + rest * radius**-3 / 3 == pytest.approx(known.FCC_SUM_6, rel=1e-4)
