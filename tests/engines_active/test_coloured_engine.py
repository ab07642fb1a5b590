"""Active Ornstein-Uhlenbeck particles: the contract, the bits, the scheme, closed forms, and irreversibility."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.active.coloured.engine import ColouredEngine
from manybody.engines.active.coloured.known_answers import (
    effective_temperature,
    free_walk,
    increments,
    mean_square_displacement,
    scheme_walk,
    trapped_walk,
)
from manybody.engines.active.coloured.spec import (
    ActiveOrnsteinUhlenbeckParticles,
    ColouredNoiseDynamics,
    longest_time_step,
)
from manybody.numerics.coloured import hessian_product
from manybody.testing.engine import check_engine

KEY = Key.from_seed(13)
REPULSIVE = ActiveOrnsteinUhlenbeckParticles(
    particles=90, area_fraction=0.6, active_temperature=4.0, persistence_time=0.2, repulsion=10.0
)
KINDS = {
    "repulsive": (REPULSIVE, 2e-4),
    "free": (REPULSIVE.model_copy(update={"repulsion": 0.0}), 0.3),
    "trapped": (ActiveOrnsteinUhlenbeckParticles(particles=90, trap=1.0, anharmonicity=0.5), 0.02),
}


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: str) -> None:
    # The centre is a sum of 90 positions of order 10, rounded once a step: 50 steps of 1e-15 each.
    check_engine(ColouredEngine(*KINDS[kind]), conserved=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_has_the_same_bits_however_it_is_cut(kind: str) -> None:
    engine = ColouredEngine(*KINDS[kind])
    start = engine.init(KEY)
    whole, pieces = engine.step(start, 77), start
    for steps in (1, 30, 5, 41):
        pieces = engine.step(pieces, steps)
    np.testing.assert_array_equal(whole.positions, pieces.positions)
    np.testing.assert_array_equal(whole.propulsions, pieces.propulsions)


def test_increments_are_those_of_many_short_ones() -> None:
    """Composed from a thousand short steps by x += I, p = e p + xi_p; and smooth where the series takes over."""
    temperature, tau, time, parts = 2.0, 0.7, 0.5, 1000
    short, e = increments(temperature, tau, time / parts), math.exp(-time / parts / tau)
    onward = np.array([[1.0, tau * (1 - e)], [0.0, e]])
    total = np.zeros((2, 2))
    for _ in range(parts):
        total = onward @ total @ onward.T + short
    np.testing.assert_allclose(increments(temperature, tau, time), total, rtol=1e-9)
    below, above = (increments(1.0, 1.0, 1e-3 * (1 + side)) for side in (-1e-9, 1e-9))
    np.testing.assert_allclose(below, above, rtol=2e-7)  # round-off 1e-16 of 2 y against y^3 / 3


@pytest.mark.parametrize("trap", [0.0, 1.5, 1 / 0.7])
def test_walks_are_stationary_and_limits_of_the_scheme(trap: float) -> None:
    """What a step adds is a covariance; the scheme's walk tends to the exact one as the square of the time step."""
    exact = trapped_walk(2.0, 0.7, trap, 0.6) if trap else free_walk(2.0, 0.7, 0.6)
    added = exact.covariance - exact.step @ exact.covariance @ exact.step.T
    assert np.linalg.eigvalsh(added).min() > 0
    if trap:
        off = [np.abs(scheme_walk(2.0, 0.7, trap, 0.6 / n, n).covariance - exact.covariance).max() for n in (40, 80)]
        assert math.log2(off[0] / off[1]) == pytest.approx(2, abs=0.1)
        assert exact.covariance[0, 0] * trap == pytest.approx(effective_temperature(2.0, 0.7, trap))
    else:
        np.testing.assert_allclose(added[0, 0], exact.covariance[0, 0] - (0.7 * -math.expm1(-0.6 / 0.7)) ** 2 * 2.0 / 0.7)
        assert mean_square_displacement(2.0, 0.7, 1e-3) == pytest.approx(2 * 2.0 / 0.7 * 1e-6, rel=1e-3)
        assert mean_square_displacement(2.0, 0.7, 1e5) == pytest.approx(4 * 2.0 * 1e5, rel=1e-4)


def test_moments_are_the_scheme_s_at_a_long_time_step() -> None:
    """So long that the scheme's moments, the exact ones and those of another noise differ by far more than the sampling error."""
    system, dt, count = ActiveOrnsteinUhlenbeckParticles(particles=50_000, trap=1.5, persistence_time=0.7), 0.5, 100_000
    engine = ColouredEngine(system, dt)
    state = engine.step(engine.init(KEY), 24)  # forgotten to exp(-2 dt 24 / 0.7) = 1e-15
    ours, exact = scheme_walk(1.0, 0.7, 1.5, dt, 1).covariance, trapped_walk(1.0, 0.7, 1.5, dt).covariance
    x, p = state.positions, state.propulsions
    for product, row in ((x * x, (0, 0)), (x * p, (0, 1)), (p * p, (1, 1))):
        error = product.std() / math.sqrt(count)
        assert product.mean() == pytest.approx(ours[row], abs=4 * error)
    assert abs(exact[0, 0] - ours[0, 0]) > 8 * (x * x).std() / math.sqrt(count)


def test_free_particles_move_exactly_at_any_time_step() -> None:
    system = ActiveOrnsteinUhlenbeckParticles(particles=40_000, persistence_time=0.7)
    for dt, steps in ((2.1, 1), (0.7, 3)):
        engine = ColouredEngine(system, dt)
        start = engine.init(KEY)
        squares = ((engine.step(start, steps).positions - start.positions) ** 2).sum(axis=1)
        error = squares.std() / math.sqrt(len(squares))
        assert squares.mean() == pytest.approx(mean_square_displacement(1.0, 0.7, 2.1), abs=4 * error)


@pytest.mark.parametrize("kind", ["repulsive", "trapped"])
def test_paths_on_the_same_noise_part_as_the_square_of_the_time_step(kind: str) -> None:
    """And so the coarse noise is the fine one's: with other noise they would part at once."""
    system, dt = KINDS[kind]
    apart = []
    start = ColouredEngine(system, dt).step(ColouredEngine(system, dt).init(KEY), 1000)
    for step in (dt / 2, dt / 4):
        coarse, fine = ColouredEngine(system, step), ColouredEngine(system, step / 2)
        steps = round(32 * dt / step)
        noise = fine.noise(KEY, 0, 2 * steps)
        ends = coarse.moved(start, coarse.coarser(noise, fine)), fine.moved(start, noise)
        apart.append(math.sqrt(float(((ends[0].positions - ends[1].positions) ** 2).sum(axis=1).mean())))
    assert math.log2(apart[0] / apart[1]) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("kind", ["repulsive", "trapped"])
def test_second_derivatives_are_those_of_the_forces(kind: str) -> None:
    """H v and tr H against differences of velocities: v = p + F, so H = -dF/dx; to the error of a central difference."""
    system, dt = KINDS[kind]
    engine = ColouredEngine(system, dt)
    state, h = engine.step(engine.init(KEY), 1000), 1e-6
    v = KEY.generator().standard_normal((90, 2))
    ends = [engine.look(replace(state, positions=state.positions + side * h * v)).velocities for side in (1, -1)]
    bent, trace = hessian_product(state.positions, v, state.edge, system.repulsion, system.trap, system.anharmonicity)
    np.testing.assert_allclose(bent, (ends[1] - ends[0]) / (2 * h), rtol=0, atol=1e-6 * np.abs(bent).max())
    diagonal = 0.0
    for index in range(180):
        unit = np.zeros(180)
        unit[index] = 1.0
        column, _ = hessian_product(
            state.positions, unit.reshape(90, 2), state.edge, system.repulsion, system.trap, system.anharmonicity
        )
        diagonal += column.ravel()[index]
    assert trace == pytest.approx(diagonal, rel=1e-12)


def test_entropy_production_in_two_forms() -> None:
    """In a quartic trap the path form and tau^2 / (2 T) <(v.grad)^3 Phi> = 3 q tau^2 / T <v^2 x.v> agree, and are positive."""
    tau = 0.5
    system = ActiveOrnsteinUhlenbeckParticles(particles=6000, trap=1.0, anharmonicity=1.0, persistence_time=tau)
    engine = ColouredEngine(system, 0.02)
    state = engine.step(engine.init(KEY), 200)
    paths, potentials = [], []
    for _ in range(24):
        state = engine.step(state, 50)  # two persistence times: independent, nearly
        look = engine.look(state)
        v = look.velocities
        paths.append(look.entropy_production)
        potentials.append(3 * tau**2 * float(((v**2).sum(axis=1) * (state.positions * v).sum(axis=1)).mean()))
    difference = np.array(paths) - np.array(potentials)
    # The scheme adds terms of order (k dt)^2 tr H, with k = 2 where particles are: an allowance of 0.01.
    error = difference.std(ddof=1) / math.sqrt(len(paths))
    assert abs(difference.mean()) < 4 * error + 0.01
    assert np.mean(potentials) > 8 * np.std(potentials, ddof=1) / math.sqrt(len(paths))
    assert np.mean(paths) > 4 * error


def test_errors_of_means_are_as_foretold() -> None:
    """The spread of <x^2> over 4000 single particles, each 64 correlated samples, against the closed form; 1 sigma is 1.1 %."""
    system, dt, samples = ActiveOrnsteinUhlenbeckParticles(particles=4000, trap=1.0, persistence_time=0.5), 0.1, 64
    engine = ColouredEngine(system, dt)
    state, total = engine.init(KEY), np.zeros(4000)
    for _ in range(samples):
        state = engine.step(state, 2)
        total += (state.positions**2).sum(axis=1) / samples
    foretold = scheme_walk(1.0, 0.5, 1.0, dt, 2).error(np.diag([1.0, 0.0, 0.0, 0.0]), samples, 1)
    # A mean of 64 squares that are worth about 6 is skewed: its variance spreads by sqrt((kurtosis - 1) / 4000), 3 %.
    assert total.std() == pytest.approx(foretold, rel=0.08)


def test_an_exploded_run_is_named() -> None:
    engine = ColouredEngine(*KINDS["repulsive"])
    state = engine.init(KEY)
    positions = state.positions.copy()
    positions[17] = positions[64] + 1e-3
    with pytest.raises(TaskError, match=r"Step 0: particle 17 moves .* Lower `time_step` \(now 0\.0002\)"):
        engine.step(replace(state, positions=positions))
    trapped = ColouredEngine(*KINDS["trapped"])
    lost = trapped.init(KEY).positions.copy()
    lost[5, 1] = np.nan
    with pytest.raises(TaskError, match="particle 5 moves"):
        trapped.step(replace(trapped.init(KEY), positions=lost))


@pytest.mark.parametrize("kind", ["repulsive", "trapped"])
def test_a_long_time_step_is_refused_and_the_longest_is_stable(kind: str) -> None:
    system, _ = KINDS[kind]
    limit = longest_time_step(system, "lattice")
    times = {"sample_every": 1.0, "frame_every": 1.0, "segment": 1.0, "equilibration": 1.0}
    count = math.ceil(1 / limit)
    ColouredNoiseDynamics(time_step=1 / count, **times).suits(system)
    with pytest.raises(ValueError, match=r"time_step of at most .* overshoot"):
        ColouredNoiseDynamics(time_step=1 / (0.9 * count // 1), **times).suits(system)
    engine = ColouredEngine(system, limit)
    assert engine.observables(engine.step(engine.init(KEY), 2000))["energy"] < 10 * system.active_temperature


def test_a_trap_is_for_particles_that_do_not_see_each_other() -> None:
    with pytest.raises(ValidationError, match="no trap where particles repel each other"):
        ActiveOrnsteinUhlenbeckParticles(repulsion=1.0, trap=1.0)
    with pytest.raises(ValidationError, match="Take more particles"):
        ActiveOrnsteinUhlenbeckParticles(particles=2, area_fraction=0.8, repulsion=1.0)
