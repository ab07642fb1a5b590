"""Barostats against the ideal gas, whose volume is gamma distributed, and against what a piston conserves."""

import math

import numba
import numpy as np
import pytest
from scipy import stats

from manybody.core.random import Key
from manybody.numerics.barostats import (
    EdgePistons,
    Piston,
    VolumeMoves,
    log_acceptance,
    log_acceptance_at_constant_enthalpy,
    push_edges,
    push_piston,
)
from manybody.numerics.nose_hoover import WEIGHTS, NoseHooverChain, exchange

ATOMS, KT, PRESSURE = 10, 0.8, 0.5


@pytest.mark.parametrize("coupling", ["isotropic", "anisotropic", "z"])
def test_ideal_gas_under_volume_moves(coupling):
    """No energy changes: V has the density V^N exp(-P V / kT), a gamma distribution of shape N + 1."""
    moves = VolumeMoves(PRESSURE, KT, coupling, size=0.8)
    box, kept = np.full(3, 2.5), []
    for index in range(5_000):
        factors, threshold = moves.trial(Key(index))
        volume = float(box.prod())
        if moves.accepts(threshold, 0.0, volume, volume * float(factors.prod()), ATOMS):
            box = box * factors
        if index % 25 == 0:
            kept.append(float(box.prod()))
    assert stats.kstest(kept, stats.gamma(ATOMS + 1, scale=KT / PRESSURE).cdf).pvalue > 1e-3
    assert (len(set(np.round(box / box[0], 12))) == 1) == (coupling == "isotropic")


def test_ideal_gas_at_constant_enthalpy():
    """V has the density V^N (H - P V)^(f/2 - 1): P V / H is beta distributed with N + 1 and f / 2."""
    moves, enthalpy, freedom = VolumeMoves(PRESSURE, KT, size=0.8), 20.0, 3.0 * ATOMS - 3
    volume, kept = 20.0, []
    for index in range(5_000):
        factors, threshold = moves.trial(Key(index))
        trial = volume * float(factors.prod())
        cost, kinetic = moves.cost(0.0, volume, trial), enthalpy - PRESSURE * volume
        if threshold < log_acceptance_at_constant_enthalpy(cost, kinetic, freedom, volume, trial, ATOMS):
            volume = trial
        if index % 25 == 0:
            kept.append(PRESSURE * volume / enthalpy)
    assert stats.kstest(kept, stats.beta(ATOMS + 1, freedom / 2).cdf).pvalue > 1e-3


def test_trial_without_a_number_is_refused():
    assert log_acceptance_at_constant_enthalpy(math.nan, 10.0, 27.0, 1.0, 1.1, 5) == -math.inf
    assert not VolumeMoves(1.0, 1.0).accepts(-50.0, math.nan, 1.0, 1.1, 5)


def test_forth_and_back_balance():
    """Detailed balance: the two acceptances differ by the weights of the two volumes, V^(N+1) exp(-(U + P V) / kT)."""
    forth = log_acceptance(1.3, PRESSURE, 20.0, 21.0, ATOMS, KT)
    assert log_acceptance(-1.3, PRESSURE, 21.0, 20.0, ATOMS, KT) == pytest.approx(-forth)
    assert forth == pytest.approx(-(1.3 + PRESSURE) / KT + (ATOMS + 1) * math.log(21 / 20))


@numba.njit
def breathe(kinetic, volume, rate, chain, piston_chain, masses, piston_masses, weights, pressure, kT, freedom, mass, dt, record):
    """An ideal gas with its chain and a piston with its own; record [steps, 2] keeps volume and conserved energy."""
    for step in range(record.shape[0]):
        for half in range(2):
            if half == 0:
                kinetic *= exchange(kinetic, chain, masses, freedom, kT, weights, 0.5 * dt) ** 2
                rate *= exchange(0.5 * mass * rate**2, piston_chain, piston_masses, 1.0, kT, weights, 0.5 * dt)
            rate, factor = push_piston(rate, kinetic, 0.0, volume, pressure, freedom, mass, 0.5 * dt)
            kinetic *= factor * factor
            if half == 0:
                volume *= math.exp(3 * rate * dt)
            else:
                kinetic *= exchange(kinetic, chain, masses, freedom, kT, weights, 0.5 * dt) ** 2
                rate *= exchange(0.5 * mass * rate**2, piston_chain, piston_masses, 1.0, kT, weights, 0.5 * dt)
        record[step, 0] = volume
        baths = 0.5 * (masses * chain[1] ** 2).sum() + kT * (freedom * chain[0, 0] + chain[0, 1:].sum())
        baths += 0.5 * (piston_masses * piston_chain[1] ** 2).sum() + kT * piston_chain[0].sum()
        record[step, 1] = kinetic + pressure * volume + 0.5 * mass * rate**2 + baths
    return record


def breathing(dt, steps):
    freedom = 3.0 * ATOMS - 3
    piston = Piston(PRESSURE, KT, 1.0, freedom)
    bath, piston_bath = NoseHooverChain(KT, 1.0, freedom, 4), NoseHooverChain(KT, 1.0, 1.0, 4)
    return breathe(
        9.0, 15.0, 0.0, bath.rest, piston_bath.rest + 0.3, bath.masses, piston_bath.masses, np.array(WEIGHTS[3]),
        PRESSURE, KT, freedom, piston.mass, dt, np.empty((steps, 2)),
    )  # fmt: skip


def test_piston_and_chains_conserve_to_second_order():
    spread = [breathing(dt, round(6 / dt))[:, 1].std() for dt in (0.04, 0.02)]
    assert math.log2(spread[0] / spread[1]) == pytest.approx(2.0, abs=0.1)


def test_ideal_gas_under_a_piston():
    """With zero momentum V has the density V^(N-1) exp(-P V / kT): mean N kT / P, variance N (kT / P)^2."""
    volumes = breathing(0.03, 400_000)[:, 0]
    unit = KT / PRESSURE
    for values, expected in ((volumes, ATOMS * unit), ((volumes - ATOMS * unit) ** 2, ATOMS * unit**2)):
        blocks = values.reshape(50, -1).mean(axis=1)
        error = blocks.std(ddof=1) / math.sqrt(50)
        assert error < 0.05 * expected  # the neighbouring shape N + 1 would be 10 % off
        assert abs(values.mean() - expected) < 4 * error


@pytest.mark.parametrize("kind", [Piston, EdgePistons])
def test_push_reversed_undoes_itself(kind):
    piston, rates = kind(1.2, 0.9, 0.7, 57.0), np.full(3, 0.2) if kind is Piston else np.array([0.2, -0.1, 0.3])
    kinetic, virial = np.array([7.0, 8.0, 10.0]), np.array([-3.0, -9.0, -1.0])
    after, factors = piston.push(rates, kinetic, virial, 80.0, 0.05)
    back, again = piston.push(-after, kinetic * factors**2, virial, 80.0, 0.05)
    np.testing.assert_allclose(-back, rates, atol=1e-14)
    np.testing.assert_allclose(factors * again, 1.0, atol=1e-14)


def test_pistons_at_the_edges_move_as_one_under_equal_loads():
    """With kinetic energies and virials that are equal in all directions both kinds of piston do the same."""
    equal, rates = np.full(3, 1 / 3), np.full(3, 0.2)
    for one, edges in zip(
        Piston(1.2, 0.9, 0.7, 57.0).push(rates, 25.0 * equal, -13.0 * equal, 80.0, 0.05),
        EdgePistons(1.2, 0.9, 0.7, 57.0).push(rates, 25.0 * equal, -13.0 * equal, 80.0, 0.05),
        strict=True,
    ):
        np.testing.assert_allclose(edges, one, rtol=1e-14)


@numba.njit
def stretch(logs, stiffness, draw, masses, weights, pressure, kT, freedom, mass, dt, record):
    """An ideal gas in a box of edges exp(logs) with an energy stiffness logs^2 / 2 an edge; record [steps, 3] keeps the logs.

    Velocities are drawn anew at every step (`draw` [steps, 3], chi-square), since an ideal gas has no collisions that would
    exchange energy between directions. The pistons have a chain.
    """
    rates, virial, kinetic, factors = np.zeros(3), np.empty(3), np.empty(3), np.ones(3)
    chain = np.full((2, masses.size), 0.3)
    for step in range(record.shape[0]):
        for half in range(2):
            if half == 0:
                swing(rates, mass, chain, masses, kT, weights, 0.5 * dt)
            for a in range(3):
                virial[a] = -stiffness * logs[a]
                kinetic[a] = 0.5 * kT * draw[step, a] if half == 0 else kinetic[a] * factors[a] ** 2
            volume = math.exp(logs[0] + logs[1] + logs[2])
            factors = push_edges(rates, kinetic, virial, volume, pressure, freedom, mass, 0.5 * dt)
            for a in range(3):
                logs[a] += dt * rates[a] if half == 0 else 0.0
        swing(rates, mass, chain, masses, kT, weights, 0.5 * dt)
        for a in range(3):
            record[step, a] = logs[a]
    return record


@numba.njit
def swing(rates, mass, chain, masses, kT, weights, time):
    """The chain of the pistons acts on them, in place."""
    motion = 0.5 * mass * (rates[0] ** 2 + rates[1] ** 2 + rates[2] ** 2)
    factor = exchange(motion, chain, masses, 3.0, kT, weights, time)
    for a in range(3):
        rates[a] *= factor


def stretching(pressure, stiffness, dt, steps):
    freedom = 3.0 * ATOMS - 3
    pistons, bath = EdgePistons(pressure, KT, 1.0, freedom), NoseHooverChain(KT, 1.0, 3.0, 4)
    draw = np.random.default_rng(5).chisquare(ATOMS - 1, (steps, 3))
    return stretch(
        np.full(3, 0.9), stiffness, draw, bath.masses, np.array(WEIGHTS[3]), pressure, KT, freedom, pistons.mass, dt,
        np.empty((steps, 3)),
    )  # fmt: skip


def agrees(values, expected):
    """The mean of a series [blocks x ..] is `expected` within 4 standard errors and the splitting's O(dt^2), 1e-3 of it."""
    blocks = values.reshape(50, -1).mean(axis=1)
    error = blocks.std(ddof=1) / math.sqrt(50)
    assert error < 0.05 * abs(expected)
    assert abs(blocks.mean() - expected) < 4 * error + 1e-3 * abs(expected)


def test_ideal_gas_under_pistons_at_the_edges():
    """V has the density V^(N-1) exp(-P V / kT), whatever the shape does, which nothing holds."""
    logs, unit = stretching(PRESSURE, 0.0, 0.04, 400_000), KT / PRESSURE
    volumes = np.exp(logs.sum(axis=1))
    agrees(volumes, ATOMS * unit)  # the neighbouring shape N + 1 would be 10 % off
    agrees((volumes - ATOMS * unit) ** 2, ATOMS * unit**2)
    assert np.ptp(logs[:, 0] - logs[:, 1]) > 1.0


def test_edges_are_distributed_each_for_itself():
    """Without a pressure, V^N exp(-k sum ln(L)^2 / 2 kT): every ln L is normal with mean N kT / k and variance kT / k."""
    stiffness = 8.0
    logs = stretching(0.0, stiffness, 0.04, 400_000)
    mean, variance = ATOMS * KT / stiffness, KT / stiffness
    for axis in range(3):
        agrees(logs[:, axis], mean)
        agrees((logs[:, axis] - mean) ** 2, variance)
        assert stats.kstest(logs[::1000, axis], stats.norm(mean, math.sqrt(variance)).cdf).pvalue > 1e-3
    correlation = np.corrcoef(logs[::1000].T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / math.sqrt(len(logs[::1000]))


def test_hard_rods_under_volume_moves():
    """N rods of length s on a ring: x = L - N s has the density (x + N s) x^(N-1) exp(-P x / kT), two gamma distributions.

    Rods are placed afresh at each trial, all arrangements alike; a trial that makes two overlap costs an infinite energy.
    """
    rods, length, generator = 6, 1.0, np.random.default_rng(3)
    moves, edge, kept = VolumeMoves(PRESSURE, KT, "z", size=0.6), 20.0, []
    for index in range(7_500):
        gaps = length + (edge - rods * length) * generator.dirichlet(np.ones(rods))
        factors, threshold = moves.trial(Key(index))
        cost = math.inf if (gaps * factors[2]).min() < length else 0.0
        if moves.accepts(threshold, cost, edge, edge * float(factors.prod()), rods):
            edge *= float(factors.prod())
        if index % 25 == 0:
            kept.append(edge - rods * length)
    unit = KT / PRESSURE
    share = rods * unit / (rods * unit + rods * length)
    parts = (share, stats.gamma(rods + 1, scale=unit)), (1 - share, stats.gamma(rods, scale=unit))
    assert stats.kstest(kept, lambda x: sum(weight * part.cdf(x) for weight, part in parts)).pvalue > 1e-3
    assert stats.kstest(kept, stats.gamma(rods + 1, scale=unit, loc=-rods * length).cdf).pvalue < 1e-6  # as points would have it
