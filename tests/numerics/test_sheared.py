"""The parts of a step of the SLLOD equations solve what they say, and account for work and heat."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from manybody.numerics.sheared import isokinetic_kick, sheared_drift, strain_velocities

GENERATOR = np.random.default_rng(11)
V, F = GENERATOR.standard_normal((3, 7)), 20 * GENERATOR.standard_normal((3, 7))


def test_isokinetic_kick_solves_gauss_s_equation():
    """dv/dt = f - (f.v/v^2) v and d(heat)/dt = -f.v, integrated by an adaptive method."""

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        v = y[:-1]
        power = float(F.ravel() @ v)
        return np.append(F.ravel() - power / float(v @ v) * v, -power)

    exact = solve_ivp(slope, (0, 0.3), np.append(V.ravel(), 0.0), rtol=1e-12, atol=1e-13).y[:, -1]
    v = V.copy()
    heat = isokinetic_kick(v, F, 0.3)
    np.testing.assert_allclose(v.ravel(), exact[:-1], rtol=0, atol=1e-9)
    assert heat == pytest.approx(exact[-1], rel=1e-9)
    assert (v**2).sum() == pytest.approx((V**2).sum(), rel=1e-14)


def test_isokinetic_kick_without_force_does_nothing():
    v = V.copy()
    assert isokinetic_kick(v, np.zeros_like(v), 0.3) == 0.0
    np.testing.assert_array_equal(v, V)


@pytest.mark.parametrize("isokinetic", [False, True])
def test_straining_velocities_balances_work_and_heat(isokinetic):
    v, strain = V.copy(), 0.2
    work, heat = strain_velocities(v, strain, isokinetic)
    flowed = V.copy()
    flowed[0] -= strain * V[1]
    assert work == pytest.approx(0.5 * (flowed**2).sum() - 0.5 * (V**2).sum(), rel=1e-12)
    assert 0.5 * (v**2).sum() - 0.5 * (V**2).sum() == pytest.approx(work + heat, abs=1e-13)
    np.testing.assert_allclose(v / v[1, 0], flowed / flowed[1, 0], rtol=1e-12)  # scaled at most
    back = v.copy()
    strain_velocities(back, -strain, isokinetic)
    np.testing.assert_allclose(back, V, rtol=1e-12)


def test_drift_is_exact():
    """Two halves are the whole, and y grows by v_y t while x grows by v_x t + rate times the integral of y."""
    x = GENERATOR.uniform(0, 5, (3, 7))
    whole, halves = x.copy(), x.copy()
    sheared_drift(whole, V, 0.7, 0.4)
    for _ in range(2):
        sheared_drift(halves, V, 0.7, 0.2)
    np.testing.assert_allclose(whole, halves, rtol=1e-13)
    np.testing.assert_allclose(whole[0], x[0] + 0.4 * V[0] + 0.7 * (0.4 * x[1] + 0.08 * V[1]), rtol=1e-13)
