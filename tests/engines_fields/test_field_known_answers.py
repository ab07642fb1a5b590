"""The exact solution against its definition, and the engine against the scheme's own solution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from manybody.core.random import Key
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.known_answers import (
    amplification,
    cosine_averages,
    exact_averages,
    gaussian_averages,
    scheme_solution,
    scheme_symbol,
    stability_limit,
    truncation_errors,
)
from manybody.engines.fields.spec import AdvectedField, Gaussian, Grid, Precision, Wave

KEY = Key.from_seed(0)


def grid(rows: int, columns: int, time_step: float, precision: Precision = "float64") -> Grid:
    return Grid(rows=rows, columns=columns, time_step=time_step, precision=precision)


def test_averages_of_a_cosine_are_its_integrals() -> None:
    for j, ours in enumerate(cosine_averages(12, 3, 0.4)):
        exact = quad(lambda x: math.cos(6 * math.pi * x + 0.4), j / 12, (j + 1) / 12, epsabs=1e-15)[0] * 12
        assert ours == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize(("width", "variance"), [(0.05, 0.0025), (0.1, 0.03), (0.5, 0.25)])
def test_averages_of_a_gaussian_are_those_of_its_images(width: float, variance: float) -> None:
    spread = math.sqrt(variance)

    def images(x: float) -> float:
        return width / spread * sum(math.exp(-((x - 0.3 - m) ** 2) / (2 * variance)) for m in range(-8, 9))

    ours = gaussian_averages(10, 0.3, width, variance)
    exact = [quad(images, j / 10, (j + 1) / 10, epsabs=1e-15)[0] * 10 for j in range(10)]
    np.testing.assert_allclose(ours, exact, atol=1e-14, rtol=0)


def test_rows_asked_for_alone_have_the_same_bits(dye: AdvectedField) -> None:
    whole = exact_averages(dye, 40, 24, 0.3)
    np.testing.assert_array_equal(exact_averages(dye, 40, 24, 0.3, 7, 19), whole[7:19])


def test_the_exact_solution_solves_the_equation(dye: AdvectedField) -> None:
    """dc/dt by central difference in time against u . grad c and D laplace c from the FFT."""
    n, t, dt = 64, 0.2, 1e-4
    rate = (exact_averages(dye, n, n, t + dt) - exact_averages(dye, n, n, t - dt)) / (2 * dt)
    k = 2j * np.pi * np.fft.fftfreq(n, 1 / n)
    modes = np.fft.fft2(exact_averages(dye, n, n, t))
    transport = -dye.velocity_x * k[:, None] - dye.velocity_y * k[None, :] + dye.diffusivity * (k[:, None] ** 2 + k[None, :] ** 2)
    # central difference: dt^2 / 6 times the third derivative, about (2 pi 2)^3
    np.testing.assert_allclose(rate, np.fft.ifft2(transport * modes).real, atol=10 * dt**2 * (4 * np.pi) ** 3 / 6)


def test_engine_gives_the_schemes_own_solution_to_round_off(dye: AdvectedField) -> None:
    steps, engine = 40, FieldEngine(dye, grid(32, 48, 0.008))
    state = engine.step(engine.init(KEY), steps)
    expected = scheme_solution(dye, 32, 48, 0.008, steps)
    # each step rounds a value about 8 times by half a unit in the last place
    np.testing.assert_allclose(state.field, expected, atol=8 * steps * 2**-53 * np.abs(expected).max(), rtol=0)


def test_engine_is_of_order_four_in_space_and_time_together(dye: AdvectedField) -> None:
    errors = []
    for n in (32, 64, 128):
        engine = FieldEngine(dye, grid(n, n, 0.32 / n))
        errors.append(engine.error(engine.step(engine.init(KEY), n)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders[0] == pytest.approx(4, abs=0.25)
    assert orders[1] == pytest.approx(4, abs=0.1)


def test_engine_is_of_order_four_in_time_alone() -> None:
    """Against the semi-discrete solution, exp(t L) mode by mode, on one grid."""
    wave = AdvectedField(velocity_x=1.0, velocity_y=0.5, diffusivity=0.001, waves=(Wave(cycles_x=2, cycles_y=1),))
    n, time = 24, 0.4
    angles = 2 * np.pi * np.fft.fftfreq(n)
    start = np.fft.fft2(exact_averages(wave, n, n, 0.0))
    limit = np.fft.ifft2(start * np.exp(time * scheme_symbol(wave, n, n, angles, angles))).real
    errors = []
    for steps in (10, 20, 40):
        engine = FieldEngine(wave, grid(n, n, time / steps))
        errors.append(np.abs(engine.step(engine.init(KEY), steps).field - limit).max())
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 4, atol=0.1)


def test_truncation_errors_are_what_is_found(dye: AdvectedField) -> None:
    engine = FieldEngine(dye, grid(48, 48, 0.005))
    state, spread = engine.init(KEY), float(exact_averages(dye, 48, 48, 0.0).std())
    predicted = truncation_errors(dye, 48, 48, 0.005, [10, 20])
    for error in predicted:
        state = engine.step(state, 10)
        assert engine.error(state) * spread == pytest.approx(error, rel=1e-4)  # folded modes are below 1e-4 of it


@pytest.mark.parametrize(
    ("u", "v", "diffusivity", "limit"),
    [
        # imaginary axis of RK4, 2 sqrt 2, over the largest slope of the fourth-order difference, 1.3722, a direction
        (1.0, 0.0, 0.0, 2.0613 / 32),
        (1.0, 1.0, 0.0, 2.0613 / 64),
        # real axis, 2.7853, over 16/3 a direction
        (0.0, 0.0, 1.0, 2.7853 / (2 * 16 / 3 * 32**2)),
    ],
)
def test_stability_limit_is_the_textbooks(u: float, v: float, diffusivity: float, limit: float) -> None:
    system = AdvectedField(velocity_x=u, velocity_y=v, diffusivity=diffusivity, gaussians=(Gaussian(),))
    assert stability_limit(system, 32, 32) == pytest.approx(0.99 * limit, rel=3e-3)


def test_noise_decays_at_the_limit_and_grows_beyond() -> None:
    system = AdvectedField(velocity_x=1.0, velocity_y=0.3, diffusivity=0.004, gaussians=(Gaussian(),))
    limit = stability_limit(system, 32, 32)
    noise = np.random.default_rng(3).standard_normal((32, 32))
    for factor, grows in ((1.0, False), (1.1, True)):
        engine = FieldEngine(system, grid(32, 32, factor * limit))
        later = engine.step(type(engine.init(KEY))(noise), 300).field
        assert (np.abs(later).max() > 10 * np.abs(noise).max()) == grows


def test_amplification_is_the_taylor_polynomial() -> None:
    z = np.array([0.3 - 0.4j])
    assert amplification(z)[0] == pytest.approx(sum(z[0] ** n / math.factorial(n) for n in range(5)), rel=1e-14)
