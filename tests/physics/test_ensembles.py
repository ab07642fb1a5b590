"""Every ensemble against statistical mechanics: equipartition of motion and of position, and equal means from all baths."""

import math

import numpy as np
import pytest
from scipy import stats

from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.extended import ExtendedEngine
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.volume_moves import VolumeMoveEngine

KT = 0.9
LIQUID = LennardJonesLiquid(temperature=KT, density=0.75, atoms=256, cutoff=2.5)
DT = 0.004


def langevin(start):
    engine = LiquidEngine(LIQUID, DT, "langevin", 0.3)
    return engine.freedom, engine.step, start


def chains(start):
    engine = ExtendedEngine(LIQUID, None, DT, thermostat_time=0.3)
    return engine.liquid.freedom, lambda state, steps: engine.step(state, steps // 5), engine.adopt(start)


def piston(start):
    engine = ExtendedEngine(LIQUID, 0.6, DT, thermostat_time=0.3, piston_time=0.5)
    return engine.liquid.freedom, lambda state, steps: engine.step(state, steps // 5), engine.adopt(start)


def volume_moves(start):
    engine = VolumeMoveEngine(LIQUID, 0.6, DT, thermostat_time=0.3)
    return engine.liquid.freedom, lambda state, steps: engine.step(state, steps // 25), start


@pytest.fixture(scope="module")
def equilibrium():
    """A state of the liquid at its temperature."""
    hot, cold = LiquidEngine(LIQUID, DT, "bussi", temperature=2.0), LiquidEngine(LIQUID, DT, "bussi")
    return cold.step(hot.step(hot.init(Key.from_seed(21)), 500), 1000)


def stiffness(x, box):
    """The Laplacian of the energy, sum over atoms: u'' + 2 u' / r of each pair twice, and of the kink at the cutoff at g = 1."""
    apart = x[:, None] - x
    apart -= box * np.round(apart / box)
    r2 = (apart**2).sum(axis=-1) + np.diag(np.full(len(x), np.inf))
    inverse = 1 / np.where(r2 < 2.5**2, r2, np.inf)
    pairs = 4 * (132 * inverse**7 - 30 * inverse**4)
    slope = 24 * (2.5**-7 - 2 * 2.5**-13)
    return pairs.sum() - len(x) ** 2 / box.prod() * 4 * math.pi * 2.5**2 * slope


@pytest.mark.parametrize("ensemble", [langevin, chains, piston, volume_moves], ids=lambda ensemble: ensemble.__name__)
def test_equipartition(equilibrium, ensemble):
    """Twenty-five configurations 0.4 tau apart, by when velocities have forgotten themselves: their memory lasts about 0.1 tau.

    Velocities: every axis has <v^2> = kT, within 4 standard errors of Gaussian numbers and 1e-3, the O(dt^2) of full steps;
    single ones are Gaussian (Kolmogorov-Smirnov). Positions: <f^2> = kT <Laplacian of U>, within 4 standard errors, and 5e-3
    for the O(dt^2) of velocity Verlet, of which stiff modes have most.
    """
    freedom, step, state = ensemble(equilibrium)
    engine = LiquidEngine(LIQUID, DT)
    velocities, squares, curvatures = [], [], []
    for _ in range(25):
        state = step(state, 100)
        particles = getattr(state, "particles", state)
        velocities.append(particles.velocities.numpy())
        squares.append(float((engine.evaluate(particles.positions, particles.box)[0] ** 2).sum()))
        curvatures.append(stiffness(particles.positions.numpy(), particles.box.numpy()))
    values = np.array(velocities) / math.sqrt(KT * freedom / (3 * 256))
    for axis in range(3):
        assert abs((values[:, :, axis] ** 2).mean() - 1) < 4 * math.sqrt(2 / (25 * 256)) + 1e-3
    assert stats.kstest(values[::4].ravel(), stats.norm.cdf).pvalue > 1e-3
    rest = np.array(squares) - KT * np.array(curvatures)
    error = rest.std(ddof=1) / 5 / (KT * np.mean(curvatures))
    assert error < 0.045  # about 0.024, itself known to a seventh from 25 configurations
    assert abs(rest.mean() / (KT * np.mean(curvatures))) < 4 * error + 5e-3
