"""The engine of flocks: its contract, its bits, a plain twin, exact limits, and its complaints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.vicsek.engine import VicsekEngine, headings, order
from manybody.engines.vicsek.known_answers import (
    balance_variance,
    mean_cosine,
    rayleigh_order,
    seen_by_all,
    seen_by_all_variance,
    walk_displacement,
)
from manybody.engines.vicsek.spec import VicsekDynamics, VicsekFlock
from manybody.engines.vicsek.state import FlockState
from manybody.numerics.flocking import align
from manybody.testing.engine import check_engine

KEY = Key.from_seed(5)
FULL = 2 * math.pi


def plain_sums(x: np.ndarray, heading: np.ndarray, edge: float, radius: float) -> np.ndarray:
    """The sums of headings, by every pair."""
    gap = x[:, None] - x
    gap -= edge * np.round(gap / edge)
    return np.asarray(((gap**2).sum(axis=2) < radius**2) @ heading)


@pytest.mark.parametrize(("radius", "noise"), [(1.0, 1.0), (0.0, 1.0), (20.0, 4.0)])
def test_contract(radius: float, noise: float) -> None:
    check_engine(VicsekEngine(VicsekFlock(particles=150, radius=radius, noise=noise)), conserved=0.0, steps=20)


@pytest.mark.parametrize("edge", [2.9, 3.0, 3.4, 7.3, 40.0])
@pytest.mark.parametrize("threads", [1, 2])
def test_sums_are_those_of_every_pair(edge: float, threads: int) -> None:
    """Crowded and sparse, with cells and without, wrapped and not; all at one place in the corner, too."""
    generator = KEY.generator()
    x = generator.uniform(-3 * edge, 3 * edge, (200, 2))
    x[:20] = edge * (1 - 1e-16)
    heading, out = headings(generator.uniform(0, FULL, 200)), np.empty((200, 2))
    VicsekEngine(VicsekFlock())  # starts the threads
    align(x, heading, edge, 1.0, threads, out)
    np.testing.assert_allclose(out, plain_sums(x, heading, edge, 1.0), rtol=0, atol=1e-12)


def test_a_step_is_vicsek_s() -> None:
    engine = VicsekEngine(VicsekFlock(particles=150, density=2.0, speed=0.3))
    state = engine.step(engine.init(KEY), 20)
    turns = KEY.generator().uniform(-1, 1, 150)
    after = engine.moved(state, turns[None])
    around = plain_sums(state.positions, headings(state.angles), state.edge, 1.0)
    np.testing.assert_allclose(after.angles, np.arctan2(around[:, 1], around[:, 0]) + turns, atol=1e-12)
    np.testing.assert_allclose(after.positions, state.positions + 0.3 * headings(state.angles), atol=1e-12)


def test_bits_depend_neither_on_cuts_nor_on_threads() -> None:
    system = VicsekFlock(particles=500, noise=2.0)
    engine = VicsekEngine(system)
    start = engine.init(KEY)
    whole, threaded, pieces = engine.step(start, 45), VicsekEngine(system, 2).step(start, 45), start
    for steps in (1, 30, 14):
        pieces = engine.step(pieces, steps)
    for other in (threaded, pieces):
        np.testing.assert_array_equal(whole.positions, other.positions)
        np.testing.assert_array_equal(whole.angles, other.angles)


def orders(system: VicsekFlock, count: int, stride: int = 1) -> np.ndarray:
    engine = VicsekEngine(system)
    state, found = engine.step(engine.init(KEY), 50), []
    for _ in range(count):
        state = engine.step(state, stride)
        found.append(order(state.angles))
    return np.array(found)


@pytest.mark.parametrize(("noise", "radius"), [(FULL, 1.0), (FULL, 0.0)])
def test_order_of_full_noise_is_rayleigh_s(noise: float, radius: float) -> None:
    phi = orders(VicsekFlock(particles=60, noise=noise, radius=radius), 1000)
    error = 1 / math.sqrt(len(phi))
    assert phi.mean() == pytest.approx(rayleigh_order(60), abs=4 * error * phi.std())
    assert (phi**2).mean() == pytest.approx(1 / 60, abs=4 * error * (phi**2).std())


def test_the_correction_to_rayleigh_s_mean() -> None:
    """Of N = 3 headings, by quadrature: the series is right to 1 / (16 N^2), far better than its first term."""
    angle = (np.arange(400) + 0.5) / 400 * FULL
    exact = float(np.abs(1 + np.exp(1j * angle[:, None]) + np.exp(1j * angle)).mean()) / 3
    assert rayleigh_order(3) == pytest.approx(exact, rel=1 / (16 * 9))
    assert abs(math.sqrt(math.pi / 12) / exact - 1) > 0.01


@pytest.mark.parametrize("noise", [1.0, 3.0, 5.0])
def test_order_where_each_sees_all(noise: float) -> None:
    system = VicsekFlock(particles=40, radius=20.0, noise=noise)
    squared = orders(system, 1000) ** 2
    assert squared.mean() == pytest.approx(seen_by_all(noise, 40), abs=4 * squared.std() / math.sqrt(1000))
    # The variance of a variance: a few per cent for 1000 values that are not far from normal.
    assert squared.var() == pytest.approx(seen_by_all_variance(noise, 40), rel=0.25)
    assert squared.var() < balance_variance(noise, 40)


def test_walkers_that_see_no_other() -> None:
    """Displacements and headings over ten steps, and the fourth moment on which tolerances rest."""
    noise, steps = 2.0, 10
    engine = VicsekEngine(VicsekFlock(particles=30_000, radius=0.0, noise=noise, speed=0.5))
    start = engine.init(KEY)
    end = engine.step(start, steps)
    squares = ((end.positions - start.positions) ** 2).sum(axis=1)
    error = squares.std() / math.sqrt(len(squares))
    assert squares.mean() == pytest.approx(walk_displacement(noise, 0.5, steps), abs=4 * error)
    assert (squares**2).mean() < 2 * squares.mean() ** 2
    turned = np.cos(end.angles - start.angles)
    assert turned.mean() == pytest.approx(mean_cosine(noise) ** steps, abs=4 * turned.std() / math.sqrt(len(turned)))
    assert walk_displacement(0.0, 0.5, 8) == pytest.approx(16.0)  # straight
    assert walk_displacement(FULL, 0.5, 8) == pytest.approx(2.0)  # a random walk


def test_without_noise_all_come_to_head_the_same_way() -> None:
    system = VicsekFlock(particles=200, noise=0.0, speed=0.3)
    assert order(VicsekEngine(system).init(KEY).angles) < 0.3
    assert orders(system, 2, stride=250)[-1] == pytest.approx(1.0, abs=1e-9)


def test_the_order_falls_with_the_noise() -> None:
    """Vicsek's transition at density 4: ordered at 1, disordered at 5; never more ordered than if each saw all."""
    found = {noise: orders(VicsekFlock(particles=400, noise=noise, speed=0.3), 40, stride=20)[15:] for noise in (1.0, 5.0)}
    for noise, phi in found.items():
        assert (phi**2).mean() < seen_by_all(noise, 400)
    assert found[1.0].min() > 0.8
    assert found[5.0].mean() < 0.2


def test_no_number_is_noticed() -> None:
    engine = VicsekEngine(VicsekFlock(particles=20))
    state = engine.init(KEY)
    angles = state.angles.copy()
    angles[3] = np.nan
    with pytest.raises(TaskError, match="no finite number"):
        engine.step(replace(state, angles=angles))


def test_a_sum_of_nothing_is_no_failure() -> None:
    """Two that head opposite ways see each other: no mean direction; both take that of the x axis, and go on."""
    engine = VicsekEngine(VicsekFlock(particles=2, density=0.02, noise=0.0))
    state = FlockState(np.array([[1.0, 1.0], [1.5, 1.0]]), np.array([0.0, math.pi]), engine.system.edge, KEY)
    assert np.isfinite(engine.step(state, 3).positions).all()


def test_times_must_nest() -> None:
    with pytest.raises(ValidationError, match="a whole multiple of time_step = 1"):
        VicsekDynamics(sample_every=2.5)
    with pytest.raises(ValidationError, match="less than or equal to 6"):
        VicsekFlock(noise=7.0)
