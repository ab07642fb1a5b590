"""Constant pressure and extended systems: contracts, equation of state, compressibility, virial against work."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from manybody.core.random import Key
from manybody.engines.particles.engine import ExplodedError, LiquidEngine
from manybody.engines.particles.extended import ExtendedEngine
from manybody.engines.particles.known_answers import pressure_tail
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.volume_moves import VolumeMoveEngine
from manybody.testing.engine import check_engine

LIQUID = LennardJonesLiquid(temperature=0.9, density=0.75, atoms=256, cutoff=2.5)
KEY = Key.from_seed(4)


def block_error(values, blocks=20):
    means = values[: len(values) // blocks * blocks].reshape(blocks, -1).mean(axis=1)
    return float(means.std(ddof=1) / math.sqrt(blocks))


@pytest.fixture(scope="module")
def equilibrium():
    """A state of the liquid at its temperature and density."""
    hot, cold = LiquidEngine(LIQUID, 0.004, "bussi", temperature=2.0), LiquidEngine(LIQUID, 0.004, "bussi")
    return cold.step(hot.step(hot.init(KEY), 500), 1000)


@pytest.mark.parametrize("coupling", ["isotropic", "anisotropic"])
def test_volume_moves_keep_the_contract(coupling):
    engine = VolumeMoveEngine(LIQUID, 0.6, coupling=coupling, stride=5)
    check_engine(engine, conserved=1e-3, steps=30)  # as `LiquidEngine`: the splitting's error at this step


EXTENDED = [(None, "isotropic"), (0.6, "isotropic"), (0.6, "anisotropic")]


@pytest.mark.parametrize(("pressure", "coupling"), EXTENDED)
def test_extended_systems_keep_the_contract(pressure, coupling):
    # From the cold lattice the temperature overshoots to twice its value: the error of the outer step is below 3e-3.
    engine = ExtendedEngine(LIQUID, pressure, piston_time=2.0, coupling=coupling)
    check_engine(engine, conserved=3e-3, reverse=engine.reversed, steps=30)


@pytest.mark.parametrize(("pressure", "coupling"), EXTENDED)
def test_extended_energy_is_conserved_to_second_order(equilibrium, pressure, coupling):
    """Over half a tau, the outer step being a fixed number of inner ones; the cutoff's jump in the force adds little."""
    spread = []
    for dt in (0.004, 0.002):
        engine = ExtendedEngine(LIQUID, pressure, dt, thermostat_time=0.2, piston_time=0.5, coupling=coupling)
        _, trace = engine.record(engine.adopt(equilibrium), round(0.5 / (5 * dt)))
        spread.append(trace.conserved.std())
    assert math.log2(spread[0] / spread[1]) == pytest.approx(2.0, abs=0.4)


@pytest.mark.parametrize("coupling", ["isotropic", "anisotropic"])
def test_extended_motion_reversed_retraces_itself(equilibrium, coupling):
    engine = ExtendedEngine(LIQUID, 0.6, coupling=coupling)
    start = engine.adopt(equilibrium)
    back = engine.reversed(engine.step(engine.reversed(engine.step(start, 20)), 20))
    apart = back.particles.positions - start.particles.positions
    apart -= start.particles.box * torch.round(apart / start.particles.box)
    assert float(apart.abs().max()) < 1e-9
    assert np.abs(back.rates).max() < 1e-10


def test_chains_hold_the_temperature(equilibrium):
    """2 K / freedom is kT within 4 standard errors and the O(dt^2) of velocity Verlet, 1e-3; its variance is canonical."""
    engine = ExtendedEngine(LIQUID, None, thermostat_time=0.1)
    _, trace = engine.record(engine.adopt(equilibrium), 1500)
    ratio = 2 * trace.particles.kinetic_energy / (engine.bath.freedom * 0.9)
    assert abs(ratio.mean() - 1) < 4 * block_error(ratio) + 1e-3
    squares = (ratio - ratio.mean()) ** 2 * engine.bath.freedom / 2
    assert abs(squares.mean() - 1) < 4 * block_error(squares) + 0.02


@pytest.fixture(scope="module")
def at_constant_volume(equilibrium):
    """The pressure at the liquid's density and 3 % above and below it: means and errors."""
    found = {}
    for density in (0.7275, 0.75, 0.7725):
        system = LIQUID.model_copy(update={"density": density})
        by = system.box / LIQUID.box
        state = replace(equilibrium, positions=equilibrium.positions * by, box=equilibrium.box * by)
        engine = LiquidEngine(system, 0.004, "bussi")
        _, trace = engine.record(engine.step(state, 500), 20, 400)
        pressures = density * 0.9 + trace.virial / (3 * system.box**3) + pressure_tail(density, 2.5)
        found[density] = pressures.mean(), block_error(pressures)
    return found


@pytest.mark.parametrize("barostat", ["volume moves", "piston"])
def test_density_at_the_pressure_of_a_density_is_that_density(equilibrium, at_constant_volume, barostat):
    """And the compressibility from the volume's fluctuation, <dV^2> / (<V> kT), is 1 / (rho dp/drho) at constant volume."""
    (below, low), (pressure, error), (above, high) = (at_constant_volume[rho] for rho in (0.7275, 0.75, 0.7725))
    slope, slope_error = (above - below) / 0.045, math.hypot(low, high) / 0.045
    if barostat == "piston":
        engine = ExtendedEngine(LIQUID, pressure, thermostat_time=0.3, piston_time=0.5)
        _, trace = engine.record(engine.step(engine.adopt(equilibrium), 100), 1600)
        volumes = trace.volume
    else:
        moves = VolumeMoveEngine(LIQUID, pressure, stride=10)
        state, _ = moves.record(equilibrium, 100)
        _, boxes = moves.record(state, 1500)
        assert 0.2 < boxes.accepted / 1500 < 0.9
        volumes = boxes.box.prod(axis=1)
    densities = 256 / volumes
    # <rho> exceeds N / <V> by var(V) / V^2, which is 1e-4 of it here; with errors of both routes.
    assert abs(densities.mean() - 0.75) < 4 * math.hypot(block_error(densities), error / slope) + 2e-4
    squares = (volumes - volumes.mean()) ** 2
    compressibility = squares.mean() / (volumes.mean() * 0.9)
    relative = math.hypot(block_error(squares) / squares.mean(), slope_error / slope)
    assert relative < 0.4
    assert compressibility * 0.75 * slope == pytest.approx(1.0, abs=4 * relative)


def test_virial_is_the_work_of_scaling(equilibrium):
    """dU/dlnV = -virial / 3 of the shifted energy, by central differences; pairs at the cutoff have no energy to lose."""
    engine = LiquidEngine(LIQUID)
    energies = []
    for by in (1 + 1e-6, 1 - 1e-6):
        _, energy, _, pairs = engine.evaluate(equilibrium.positions * by, equilibrium.box * by)
        energies.append(energy - engine.shift * pairs)
    _, _, virial, _ = engine.evaluate(equilibrium.positions, equilibrium.box)
    assert (energies[0] - energies[1]) / 6e-6 == pytest.approx(-virial / 3, abs=0.05)


def test_virials_by_direction_are_the_work_of_each_edge(equilibrium):
    """dU/dlnL = -virial of each direction, by central differences; in plain torch as by the kernel; together the virial."""
    engine = ExtendedEngine(LIQUID, 0.6, coupling="anisotropic")
    found = engine.adopt(equilibrium).sums
    for axis in range(3):
        energies = []
        for by in (1 + 1e-6, 1 - 1e-6):
            factors = torch.ones(3, dtype=torch.float64)
            factors[axis] = by
            _, energy, _, pairs = engine.liquid.evaluate(equilibrium.positions * factors, equilibrium.box * factors)
            energies.append(energy - engine.liquid.shift * pairs)
        assert (energies[0] - energies[1]) / 2e-6 == pytest.approx(-found.virial[axis], abs=0.05)
    assert found.virial.sum() == pytest.approx(engine.liquid.evaluate(equilibrium.positions, equilibrium.box)[2], rel=1e-12)
    plain = ExtendedEngine(LIQUID, 0.6, coupling="anisotropic", device="cpu:0").adopt(equilibrium).sums
    np.testing.assert_allclose(plain.virial, found.virial, rtol=1e-10)


def test_a_box_below_twice_the_cutoff_stops_the_run(equilibrium):
    wide = LIQUID.model_copy(update={"cutoff": 3.4})
    moves = VolumeMoveEngine(wide, 20.0, stride=5)
    with pytest.raises(
        ExplodedError, match=r"Step \d+: the cutoff, 3\.4, is beyond half the shortest edge .* Lower the cutoff"
    ) as caught:
        moves.step(equilibrium, 400)
    assert caught.value.state is not None
    pushed = ExtendedEngine(wide, 20.0)
    with pytest.raises(ExplodedError, match="is beyond half the shortest edge"):
        pushed.step(pushed.adopt(equilibrium), 400)


def test_without_a_heat_bath_enthalpy_is_kept(equilibrium):
    """E + P V stays within the error of velocity Verlet; the pressure asked for comes out, and T as <2 K> / freedom."""
    moves = VolumeMoveEngine(LIQUID.model_copy(update={"tail_correction": False}), 1.0, thermostat="none", stride=10)
    state, _ = moves.record(equilibrium, 150)
    _, trace = moves.record(state, 700)
    volumes = trace.box.prod(axis=1)
    enthalpy = trace.particles.potential_energy + trace.particles.kinetic_energy + volumes
    assert np.ptp(enthalpy) < 0.02 * trace.particles.kinetic_energy.mean() / 3
    assert trace.accepted > 150
    pressure = (2 * trace.particles.kinetic_energy + trace.particles.virial) / (3 * volumes)
    # <P> differs from P by kT / V for trials in ln V at constant enthalpy: 3e-3 here.
    assert abs(pressure.mean() - 1.0) < 4 * block_error(pressure) + 3e-3


def test_recorded_boxes_are_those_of_the_states(equilibrium):
    moves = VolumeMoveEngine(LIQUID, 0.6, coupling="z", stride=5)
    state, trace = moves.record(equilibrium, 30)
    assert (trace.box[:, :2] == equilibrium.box[0].item()).all()
    assert len(np.unique(trace.box[:, 2])) > 3
    assert trace.particles.kinetic_energy.shape == (30,)
    assert state.step == equilibrium.step + 150
