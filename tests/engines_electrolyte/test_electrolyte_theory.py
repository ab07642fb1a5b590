"""Linear theory: the closed forms against numerical solutions of the same equations, and their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm, solve_continuous_lyapunov

from manybody.engines.electrolyte.known_answers import (
    BoxModes,
    LinearTheory,
    density_tail,
    first_correction,
    power_variance,
    relaxation_force,
    relaxation_force_of_points,
)

THEORY = LinearTheory(field=1.7, width=0.6, repulsion=0.8)
ALONG, SQUARE = np.array([0.3, 0.9, 0.0, -0.5, 2.0]), np.array([0.5, 0.81, 0.4, 1.3, 4.1])


def drift(theory: LinearTheory, along: float, square: float) -> np.ndarray:
    a, b, u = theory.rates(np.array(along), np.array(square))
    return np.array([[a, 1j * u], [1j * u, b]])


def test_closed_form_solves_lyapunov_s_equation() -> None:
    found = THEORY.structure(ALONG, SQUARE)
    for index, (along, square) in enumerate(zip(ALONG, SQUARE, strict=True)):
        c = solve_continuous_lyapunov(drift(THEORY, along, square), 2 * square * np.eye(2, dtype=complex))
        assert found.density[index] == pytest.approx(c[0, 0].real, rel=1e-12)
        assert found.charge[index] == pytest.approx(c[1, 1].real, rel=1e-12)
        assert found.cross[index] == pytest.approx(c[0, 1].imag, abs=1e-14)


def test_closed_form_is_what_noise_makes() -> None:
    """Linear Langevin equations with random numbers, by the trapezoidal rule, whose steady state is exact at any time step."""
    generator, walkers, dt = np.random.default_rng(4), 10_000, 0.5
    m = drift(THEORY, 0.6, 0.7)
    left, right = np.eye(2) + dt / 2 * m, np.eye(2) - dt / 2 * m
    step, kick = np.linalg.solve(left, right), np.linalg.inv(left) * math.sqrt(dt * 2 * 0.7)
    v = np.zeros((2, walkers), complex)
    for _ in range(40):  # the slower rate is 0.9: exp(-18) is left of the start
        noise = generator.normal(0, math.sqrt(0.5), (2, 2, walkers))
        v = step @ v + kick @ (noise[0] + 1j * noise[1])
    found = THEORY.structure(np.array([0.6]), np.array([0.7]))
    c = v @ v.conj().T / walkers
    # |v|^2 of a complex Gaussian scatters as much as its mean: 4 standard errors.
    assert c[0, 0].real == pytest.approx(found.density[0], rel=4 / math.sqrt(walkers))
    assert c[1, 1].real == pytest.approx(found.charge[0], rel=4 / math.sqrt(walkers))
    assert c[0, 1].imag == pytest.approx(found.cross[0], abs=4 * math.sqrt(found.density[0] * found.charge[0] / walkers))


def test_correlations_in_time_are_matrix_exponentials() -> None:
    times = np.array([0.0, 0.2, 3.0])
    found = THEORY.correlations(ALONG, SQUARE, times)
    for index, (along, square) in enumerate(zip(ALONG, SQUARE, strict=True)):
        for place, time in enumerate(times):
            expected = expm(-time * drift(THEORY, along, square)) @ found[index, 0]
            np.testing.assert_allclose(found[index, place], expected, atol=1e-8)


def test_heun_s_structure_converges_with_the_square_of_the_time_step() -> None:
    exact = THEORY.structure(ALONG, SQUARE)
    for name in ("density", "charge"):
        errors = [abs(getattr(THEORY.heun(ALONG, SQUARE, dt), name) - getattr(exact, name)).max() for dt in (0.05, 0.025, 0.0125)]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
        assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.08)


def test_limits_of_long_waves_depend_on_the_direction_to_the_field_alone() -> None:
    k = 1e-4
    for cosine in (0.0, 0.4, 1.0):
        found = THEORY.structure(np.array([k * cosine]), np.array([k * k]))
        assert found.density[0] == pytest.approx(THEORY.density_limit(cosine), rel=1e-6)
        assert found.charge[0] / k**2 == pytest.approx(THEORY.charge_limit(cosine), rel=1e-6)
    assert THEORY.density_limit(0) - THEORY.density_limit(1) == pytest.approx(1 / 1.8 - 1 / (1.8 + 1.7**2))


def test_without_a_field_it_is_debye_and_hueckel_s() -> None:
    found = LinearTheory(0.0, 1e-6).structure(ALONG, SQUARE)
    np.testing.assert_allclose(found.density, 1.0, atol=1e-10)
    np.testing.assert_allclose(found.charge, SQUARE / (SQUARE + 1), rtol=1e-10)
    np.testing.assert_array_equal(found.cross, 0.0)


@pytest.mark.parametrize("field", [1e-3, 0.0499, 0.0501, 0.7, 5.0])
def test_relaxation_force_of_point_ions(field: float) -> None:
    integral = 0.5 * quad(lambda m: m * m / (math.hypot(1, field * m) + math.sqrt(0.5)), 0, 1, epsabs=1e-13)[0]
    assert relaxation_force_of_points(0.3, field) == pytest.approx(0.3 * field * integral, rel=1e-6)


def test_limiting_law_of_onsager() -> None:
    assert relaxation_force_of_points(1.0, 1e-4) / 1e-4 == pytest.approx((2 - math.sqrt(2)) / 6, rel=1e-7)


def in_an_infinite_box(theory: LinearTheory) -> float:
    """1 / (2 pi)^3 int d^3k k_x s V_c at unit coupling, k = sinh x up to k a = 5, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    top = math.asinh(5 / theory.width)
    k, dk = np.sinh(top * (nodes + 1) / 2)[:, None], (top / 2 * weights * np.cosh(top * (nodes + 1) / 2))[:, None]
    along, square = k * nodes, np.broadcast_to(k**2, (60, 60))
    force = along * theory.structure(along, square).cross * 4 * math.pi * theory.form_factor(square) / square
    return float((force * k**2 * dk * weights).sum() / (2 * math.pi) ** 2)


def test_relaxation_force_in_a_box_is_nearly_that_in_an_infinite_one() -> None:
    """The box leaves out mode 0, a cell of volume (2 pi / L)^3: of order 1 / L^3."""
    theory = LinearTheory(1.0, 0.4)
    left_out = [relaxation_force(theory, 1.0, BoxModes.within(edge, 12.5)) - in_an_infinite_box(theory) for edge in (20.0, 40.0)]
    assert left_out[0] / left_out[1] == pytest.approx(8, abs=0.8)
    assert abs(left_out[1]) < 0.02 * in_an_infinite_box(theory)


@pytest.mark.parametrize("field", [0.2, 1.0, 4.0])
def test_relaxation_force_of_narrow_clouds_is_that_of_points(field: float) -> None:
    """A cloud of width a takes a share of order a off; extrapolated from two widths."""
    wide, narrow = (in_an_infinite_box(LinearTheory(field, width)) for width in (2e-3, 1e-3))
    assert 2 * narrow - wide == pytest.approx(relaxation_force_of_points(1.0, field), rel=1e-3)


def test_first_correction_of_point_ions_is_a_quarter_of_the_coupling() -> None:
    """Debye and Hueckel's free energy, -kappa^3 / 12 pi, differentiated twice by the density."""
    found = [first_correction(LinearTheory(0.0, width), 0.2) for width in (0.02, 0.01)]
    assert 2 * found[1] - found[0] == pytest.approx(0.05, rel=2e-3)


def test_tail_is_the_transform_of_the_long_waves() -> None:
    """- laplacian of the Green function of -(p d_x^2 + q d_y^2 + q d_z^2), by differences; along the field 1/r^3."""
    p, q = 1.8 + 1.7**2, 1.8

    def green(x: float, y: float) -> float:
        return 1 / (4 * math.pi * math.sqrt(q) * math.sqrt(q * x * x + p * y * y))

    e = 1e-3
    for x, y in ((5.0, 0.0), (0.0, 3.0), (2.0, 2.0)):
        bend = green(x + e, y) + green(x - e, y) + green(x, y + e) + green(x, y - e) + 2 * green(x, math.hypot(y, e))
        assert density_tail(THEORY, x, y) == pytest.approx(-(bend - 6 * green(x, y)) / e**2, rel=1e-4)
    assert density_tail(THEORY, 10.0, 0.0) == pytest.approx(density_tail(THEORY, 5.0, 0.0) / 8)
    assert density_tail(THEORY, 5.0, 0.0) > 0 > density_tail(THEORY, 0.0, 5.0)


def test_modes_of_a_box_are_all_counted() -> None:
    modes = BoxModes.within(10.0, 2 * math.pi / 10 * 3.001)
    axis = np.arange(-3, 4)
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    assert 2 * modes.count.sum() == ((square > 0) & (square <= 9)).sum()
    assert modes.square.min() == pytest.approx((2 * math.pi / 10) ** 2)


def test_variance_of_a_mean_of_correlated_powers() -> None:
    """A complex Gaussian with correlation q^lag: 1 + 2 q^2 / (1 - q^2)."""
    assert power_variance(0.8 ** np.arange(200)[None, :])[0] == pytest.approx((1 + 0.64) / (1 - 0.64))
