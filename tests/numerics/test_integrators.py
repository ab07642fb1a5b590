"""Heat baths keep the canonical distribution, and the splitting samples a harmonic oscillator exactly at any step."""

import math

import numba
import numpy as np
import pytest
import torch
from scipy import stats

from manybody.core.random import Key
from manybody.numerics import plain_dynamics
from manybody.numerics.integrators import LANGEVIN, NO_BATH, RESCALING, HeatBath, drift, heat_bath, kick

KEY = Key.from_seed(7)


@numba.njit
def oscillate(x, v, steps, dt, kind, decay, kT, freedom, noise, chi2, record):
    """One oscillator of frequency 1 in each coordinate; keeps x at the end of each step and the heat."""
    names, heat = np.arange(x.shape[1]), 0.0
    for step in range(steps):
        kick(v, -x, 0.5 * dt)
        drift(x, v, 0.5 * dt)
        heat += heat_bath(v, names, kind, decay, kT, freedom, noise, chi2, step)
        drift(x, v, 0.5 * dt)
        kick(v, -x, 0.5 * dt)
        record[step] = x[0, 0]
    return heat


def blocked_error(values: np.ndarray, blocks: int = 50) -> float:
    means = values[: len(values) // blocks * blocks].reshape(blocks, -1).mean(axis=1)
    return float(means.std(ddof=1) / math.sqrt(blocks))


@pytest.mark.parametrize(("kind", "dt"), [(RESCALING, 1.0), (RESCALING, 1.6), (LANGEVIN, 1.0), (LANGEVIN, 1.6)])
def test_harmonic_variance_is_exact_at_large_steps(kind, dt):
    kT, steps = 0.7, 400_000  # velocity Verlet alone would be off by 1/(1 - dt^2/4): 33 % and 178 %
    bath = HeatBath(kind, kT, 1.0, 1.0 if kind == RESCALING else 3.0)
    noise, chi2 = bath.noise(KEY, 0, steps, 1)
    x, v, record = np.zeros((3, 1)), np.zeros((3, 1)), np.empty(steps)
    v[0] = math.sqrt(kT)
    oscillate(x, v, steps, dt, kind, bath.decay(dt), kT, bath.freedom, noise, chi2, record)
    squares = record[1000:] ** 2
    assert abs(squares.mean() - kT) <= 3 * blocked_error(squares)


def test_rescaling_gives_the_canonical_kinetic_energy():
    """2 K / kT is chi-square distributed; after 4 relaxation times the samples are independent, so the test is exact."""
    kT, atoms, samples = 1.3, 4, 4000
    freedom = 3 * atoms - 3
    bath = HeatBath(RESCALING, kT, 0.25, freedom)
    noise, chi2 = bath.noise(KEY, 0, samples, atoms)
    v = np.full((3, atoms), 2.0)
    found = np.empty(samples)
    for step in range(samples):
        heat_bath(v, np.arange(atoms), RESCALING, bath.decay(2.0), kT, float(freedom), noise, chi2, step)
        found[step] = (v**2).sum() / kT
    assert stats.kstest(found[10:], stats.chi2(freedom).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", [NO_BATH, RESCALING, LANGEVIN])
def test_heat_is_the_change_of_kinetic_energy(kind):
    generator = np.random.default_rng(3)
    v = generator.standard_normal((3, 50))
    bath = HeatBath(kind, 0.9, 0.5, 150.0)
    noise, chi2 = bath.noise(KEY, 11, 1, 50)
    before = 0.5 * (v**2).sum()
    heat = heat_bath(v, np.arange(50), kind, bath.decay(0.1), 0.9, 150.0, noise, chi2, 0)
    assert 0.5 * (v**2).sum() - before == pytest.approx(heat, abs=1e-12)


@pytest.mark.parametrize("kind", [NO_BATH, RESCALING, LANGEVIN])
def test_noise_does_not_depend_on_how_a_run_is_cut(kind):
    bath = HeatBath(kind, 1.0, 0.5, 27.0)
    whole = bath.noise(KEY, 250, 20, 10)
    for part in zip(bath.noise(KEY, 250, 7, 10), bath.noise(KEY, 257, 13, 10), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(part[:2]), part[2])


@pytest.mark.parametrize("kind", [RESCALING, LANGEVIN])
def test_plain_torch_takes_the_same_step(kind):
    generator = np.random.default_rng(3)
    v = generator.standard_normal((3, 20))
    bath = HeatBath(kind, 0.9, 0.5, 57.0)
    noise, chi2 = bath.noise(KEY, 0, 1, 20)
    square = torch.from_numpy(chi2)[0] if len(chi2) else torch.empty(0)
    plain, heat = plain_dynamics.heat_bath(torch.from_numpy(v.T.copy()), bath, 0.1, torch.from_numpy(noise)[0], square)
    expected = heat_bath(v, np.arange(20), kind, bath.decay(0.1), 0.9, 57.0, noise, chi2, 0)
    np.testing.assert_allclose(plain.numpy(), v.T, rtol=1e-12)
    assert float(heat) == pytest.approx(expected, rel=1e-10)
