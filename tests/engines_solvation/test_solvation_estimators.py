"""Free energies of springs and of Gaussian works, by every route; the rule of integration; the fluid's equation of state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from manybody.engines.particles.known_answers import second_virial
from manybody.engines.solvation.estimators import acceptance_ratio, exponential, jackknifed, overlap
from manybody.engines.solvation.known_answers import added_particle, excess_helmholtz, tail
from manybody.engines.solvation.observables import Windows
from manybody.engines.solvation.quadrature import lobatto

BLOCKS, SAMPLES = 20, 2000


@pytest.mark.parametrize("count", [3, 5, 7])
def test_the_rule_integrates_polynomials_up_to_its_degree(count):
    nodes, weights = lobatto(count)
    assert (nodes[0], nodes[-1]) == (0.0, 1.0)
    for degree in range(2 * count - 2):
        assert float(weights @ nodes**degree) == pytest.approx(1 / (degree + 1), abs=1e-11)  # nodes are kept to 12 digits
    assert float(weights @ nodes ** (2 * count - 2)) != pytest.approx(1 / (2 * count - 1), abs=1e-11)


def springs(k0: float, k1: float) -> Windows:
    """Windows of a spring in three dimensions, k(l) = k0 + l (k1 - k0), kT = 1, sampled exactly and independently."""
    nodes, _ = lobatto(5)
    generator, stiffness = np.random.default_rng(7), k0 + nodes * (k1 - k0)
    squares = [(generator.standard_normal((SAMPLES, 3)) ** 2).sum(axis=1) / k for k in stiffness]
    return Windows(
        energies=tuple(0.5 * stiffness * r2[:, None] for r2 in squares),
        slopes=tuple(0.5 * (k1 - k0) * r2 for r2 in squares),
        neighbours=np.zeros(SAMPLES),
        insertions=np.exp(-0.5 * (k1 - k0) * squares[0]),
        blocks=tuple(np.arange(SAMPLES) * BLOCKS // SAMPLES for _ in nodes),
    )


@pytest.mark.parametrize("route", ["integrated", "accepted", "multistate", "forward", "backward", "inserted"])
def test_every_route_gives_the_free_energy_of_a_spring(route):
    """3/2 kT log(k1/k0), within four standard errors of the jackknife, which are those of 2000 independent samples a window."""
    windows, exact = springs(1.0, 4.0), 1.5 * math.log(4.0)
    values = jackknifed(lambda block: getattr(windows.without(block), route)(), BLOCKS)
    error = float(values.std(ddof=1)) / math.sqrt(BLOCKS)
    assert float(values.mean()) == pytest.approx(exact, abs=4 * error)
    assert 0.005 < error < 0.05


def test_gaussian_works():
    """Works N(m, s^2) forward have dF = m - s^2/2, and are N(-m + s^2, s^2) backward."""
    generator, m, s, count = np.random.default_rng(3), 2.0, 0.8, 40_000
    forward, backward = generator.normal(m, s, count), generator.normal(s**2 - m, s, count)
    exact = m - s**2 / 2
    assert exponential(forward) == pytest.approx(exact, abs=4 * math.sqrt((math.exp(s**2) - 1) / count))
    assert acceptance_ratio(forward, backward) == pytest.approx(exact, abs=4 * s / math.sqrt(2 * count))
    assert acceptance_ratio(backward, forward) == pytest.approx(-acceptance_ratio(forward, backward), abs=1e-10)
    few = acceptance_ratio(forward[:10], backward)
    assert few == pytest.approx(exact, abs=4 * s / math.sqrt(10))
    assert acceptance_ratio(np.full(5, 800.0), np.full(9, -800.0)) == pytest.approx(800, abs=1e-9)


def test_overlap_is_a_half_of_twins_and_nothing_of_strangers():
    same = np.zeros(100)
    assert overlap(same, same) == pytest.approx(0.5)
    generator = np.random.default_rng(1)
    near, far = (overlap(generator.normal(m, s, 4000), generator.normal(s**2 - m, s, 4000)) for m, s in ((0.5, 1.0), (18, 6.0)))
    assert 0.3 < near < 0.45
    assert far < 0.03


def pressure(temperature: float, density: float, h: float = 1e-5) -> float:
    """rho T + rho^2 da/drho."""
    change = excess_helmholtz(temperature, density + h) - excess_helmholtz(temperature, density - h)
    return density * temperature + density**2 * change / (2 * h)


def test_equation_of_state_is_the_published_one():
    """Values of the authors' program at T = 1.3, to what central differences and rounded coefficients leave."""
    for density, known, energy in (
        (0.2, 0.12147936810578708, -1.5371511277396868),
        (0.4, 0.11253334756806482, -2.806016725054152),
    ):
        assert pressure(1.3, density) == pytest.approx(known, abs=2e-6)
        h = 1e-5
        slope = (excess_helmholtz(1.3 + h, density) - excess_helmholtz(1.3 - h, density)) / (2 * h)
        assert excess_helmholtz(1.3, density) - 1.3 * slope == pytest.approx(energy, abs=2e-6)


@pytest.mark.parametrize("temperature", [1.5, 2.0, 3.0])
def test_one_particle_in_a_gas_costs_the_second_virial_coefficient(temperature):
    """mu_ex = 2 rho B2 kT to first order; the equation has B2 to about 1e-3 of a sphere of diameter 1."""
    density = 1e-4
    exact = 2 * density * second_virial(temperature) * temperature
    assert added_particle(temperature, density, 1000) == pytest.approx(exact, abs=2 * density * temperature * 4e-3)


def test_adding_one_of_many_is_the_slope():
    """(N + 1) a(rho') - N a(rho) tends to d(rho a)/d(rho), half a particle's density away."""
    h, rho, many = 1e-5, 0.6, 10_000
    slope = ((rho + h) * excess_helmholtz(2.0, rho + h) - (rho - h) * excess_helmholtz(2.0, rho - h)) / (2 * h)
    assert added_particle(2.0, rho, many) == pytest.approx(slope, abs=20 / many)
    assert added_particle(2.0, rho, 256) - slope == pytest.approx(
        256**-1 * many * (added_particle(2.0, rho, many) - slope), rel=0.05
    )


def test_tail_is_the_integral_beyond_the_cutoff():
    nodes, weights = np.polynomial.legendre.leggauss(60)
    t, part = 0.5 * (nodes + 1), 0.5 * weights  # r = 3 / t
    r = 3.0 / t
    energy = 4 * 0.8 * ((1.2 / r) ** 12 - (1.2 / r) ** 6)
    assert tail(0.4, 3.0, 1.2, 0.8) == pytest.approx(
        0.4 * float((part * energy * 4 * np.pi * r**2 * 3.0 / t**2).sum()), rel=1e-12
    )
