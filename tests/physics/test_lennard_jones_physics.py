"""The liquid against theory: conservation, order, temperature, and the limits of a gas and of a crystal."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.known_answers import energy_tail, fcc_energy, pair_energy, second_virial
from manybody.engines.particles.spec import LennardJonesLiquid

LIQUID = LennardJonesLiquid(temperature=0.9, density=0.75, atoms=256, cutoff=2.5)
KEY = Key.from_seed(11)


@pytest.fixture(scope="module")
def equilibrium():
    """A state of the liquid at its temperature."""
    hot, cold = LiquidEngine(LIQUID, 0.004, "bussi", temperature=2.0), LiquidEngine(LIQUID, 0.004, "bussi")
    return cold.step(hot.step(hot.init(KEY), 500), 1500)


def energy_series(engine, state, stride, samples):
    _, trace = engine.record(state, stride, samples)
    return (trace.potential_energy + trace.kinetic_energy - trace.heat) / (engine.freedom * 0.9)


def test_energy_fluctuates_with_the_square_of_the_time_step(equilibrium):
    """Over the same 2 tau; the shift of the force at the cutoff adds little at these steps."""
    spread = [energy_series(LiquidEngine(LIQUID, dt), equilibrium, 1, round(2 / dt)).std() for dt in (0.004, 0.002)]
    assert math.log2(spread[0] / spread[1]) == pytest.approx(2.0, abs=0.25)


@pytest.mark.parametrize("thermostat", ["none", "bussi", "langevin"])
def test_effective_energy_does_not_drift(equilibrium, thermostat):
    """Below 5e-5 / 0.5 kT a degree of freedom and tau: what the study's certificate asks for."""
    energy = energy_series(LiquidEngine(LIQUID, 0.004, thermostat), equilibrium, 25, 200)
    drift = np.polyfit(0.1 * np.arange(200), energy, 1)[0]
    assert abs(drift) < 1e-4


def test_motion_reversed_retraces_itself(equilibrium):
    engine = LiquidEngine(LIQUID, 0.004)
    there = engine.step(equilibrium, 100)
    back = engine.step(replace(there, velocities=-there.velocities), 100)
    apart = back.positions - equilibrium.positions
    apart -= equilibrium.box * torch.round(apart / equilibrium.box)
    assert float(apart.abs().max()) < 1e-9  # round-off 1e-15, grown by chaos over 2 x 0.4 tau and summed over 200 steps


@pytest.mark.parametrize("thermostat", ["bussi", "langevin"])
def test_kinetic_energy_is_canonical(equilibrium, thermostat):
    """2 K / kT is chi-square with the engine's degrees of freedom; sampled each 2 relaxation times of the bath."""
    engine = LiquidEngine(LIQUID, 0.004, thermostat, thermostat_time=0.05)
    _, trace = engine.record(engine.step(equilibrium, 100), 25, 300)
    # At full steps the kinetic energy of BAOAB is low by O(dt^2): about 1e-3 of itself, a fifth of the spread of the mean.
    assert stats.kstest(2 * trace.kinetic_energy / 0.9, stats.chi2(engine.freedom).cdf).pvalue > 1e-3


def test_velocities_are_maxwellian(equilibrium):
    values = equilibrium.velocities.numpy().ravel() / math.sqrt(0.9)
    assert stats.kstest(values, stats.norm.cdf).pvalue > 1e-3


def test_dilute_gas_follows_the_second_virial_coefficient():
    """Z = 1 + B2 rho + B3 rho^2 with B3 about 1.5 at T = 3: B2 rho = -0.0027, B3 rho^2 = 1.5e-4 at rho = 0.01.

    The potential cut at 4 sigma misses 16/3 pi rho^2 r_c^-3 of the pressure: below 3e-5.
    """
    gas = LennardJonesLiquid(temperature=1.5, density=0.02, atoms=400, cutoff=4.0)
    engine = LiquidEngine(gas, 0.01, "langevin", thermostat_time=1.0)
    _, trace = engine.record(engine.step(engine.init(KEY), 2000), 40, 300)
    factor = 1 + trace.virial / (3 * gas.box**3) / (0.02 * 1.5)
    means = factor.reshape(20, -1).mean(axis=1)
    error = means.std(ddof=1) / math.sqrt(20)
    third = 3.0 * 0.02**2  # a bound on B3 rho^2 at this temperature
    assert abs(factor.mean() - (1 + second_virial(1.5) * 0.02)) < 3 * error + third


def test_crystal_at_rest_has_the_energy_of_the_lattice_sums():
    """Beyond the cutoff the sum is replaced by the integral over g(r) = 1, good to about 1e-3 at r_c = 4.9."""
    crystal = LennardJonesLiquid(temperature=1.0, density=1.0, atoms=1372, cutoff=5.5)
    engine = LiquidEngine(crystal)
    state = engine.init(KEY)
    _, energy, _, _ = engine.kernel.evaluate(state.positions.numpy(), state.box.numpy(), 5.5)
    assert energy / 1372 + energy_tail(1.0, 5.5) == pytest.approx(fcc_energy(1.0), rel=2e-3)


def test_shift_of_the_reported_energy(equilibrium):
    engine = LiquidEngine(LIQUID)
    _, plain, _, pairs = engine.kernel.evaluate(equilibrium.positions.numpy(), equilibrium.box.numpy(), 2.5)
    assert engine.observables(equilibrium)["potential_energy"] * 256 == pytest.approx(plain - pair_energy(2.5) * pairs, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    by=st.tuples(*[st.floats(-50, 50)] * 3),
    axes=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    seed=st.integers(0, 2**31),
)
def test_forces_follow_translation_rotation_and_permutation(equilibrium, by, axes, signs, seed):
    engine = LiquidEngine(LIQUID)
    box = equilibrium.box.numpy()
    x = equilibrium.positions.numpy()
    order = np.random.default_rng(seed).permutation(256)
    forces, energy, virial, pairs = engine.kernel.evaluate(x, box, 2.5)
    image = (x[order][:, axes] * np.array(signs)) + np.array(by)
    found = engine.kernel.evaluate(np.ascontiguousarray(image), box, 2.5)
    np.testing.assert_allclose(found[0], forces[order][:, axes] * np.array(signs), atol=1e-10 * np.abs(forces).max())
    assert found[1] == pytest.approx(energy, rel=1e-11)
    assert found[2] == pytest.approx(virial, rel=1e-10)
    assert found[3] == pairs
    assert np.abs(forces.sum(axis=0)).max() < 1e-11 * np.abs(forces).sum()
