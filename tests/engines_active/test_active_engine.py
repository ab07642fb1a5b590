"""The engine of active particles: its contract, its bits, its forces, its starts and its complaints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.active.engine import ActiveEngine
from manybody.engines.active.known_answers import effective_diameter, repulsion_energy
from manybody.engines.active.sites import start_sites, start_spacing
from manybody.engines.active.spec import ActiveBrownianParticles, BrownianDynamics, longest_time_step
from manybody.numerics.brownian import evaluate, pair_list
from manybody.numerics.pairs import PairPotential
from manybody.testing.engine import check_engine

KEY = Key.from_seed(7)
SWIMMERS = ActiveBrownianParticles(particles=90, area_fraction=0.5, speed=40.0, repulsion=10.0)
KINDS = {
    "swimmers": SWIMMERS,
    "passive": SWIMMERS.model_copy(update={"speed": 0.0}),
    "free": SWIMMERS.model_copy(update={"repulsion": 0.0}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: str) -> None:
    # The centre is a sum of 90 positions of order 10, rounded once a step: 50 steps of 1e-15 each.
    check_engine(ActiveEngine(KINDS[kind], 1e-4), conserved=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_has_the_same_bits_however_it_is_cut(kind: str) -> None:
    engine = ActiveEngine(KINDS[kind], 1e-4, "strip")
    start = engine.init(KEY)
    whole = engine.step(start, 77)
    pieces = start
    for steps in (1, 30, 5, 41):
        pieces = engine.step(pieces, steps)
    np.testing.assert_array_equal(whole.positions, pieces.positions)
    np.testing.assert_array_equal(whole.angles, pieces.angles)


def test_forces_are_those_of_the_generated_kernel_in_a_plane() -> None:
    """The three-dimensional kernel of the same formula, at z = 0; its sums are only ordered differently."""
    state = ActiveEngine(SWIMMERS, 1e-4).step(ActiveEngine(SWIMMERS, 1e-4).init(KEY), 400)
    kernel = PairPotential("wca", "4*epsilon*(1/r**12 - 1/r**6) + epsilon", ("epsilon",)).bind({"epsilon": 10.0})
    flat = np.pad(state.positions % state.edge, ((0, 0), (0, 1)))
    expected, energy, virial, pairs = kernel.evaluate(flat, np.full(3, state.edge), 2 ** (1 / 6))
    forces, ours, our_virial = evaluate(state.positions, state.edge, 10.0)
    assert pairs > 50
    np.testing.assert_allclose(forces, expected[:, :2], rtol=0, atol=1e-10 * np.abs(expected).max())
    assert (ours, our_virial) == pytest.approx((energy, virial), rel=1e-11)


@pytest.mark.parametrize("edge", [2.3, 4.0, 9.0])
def test_the_list_holds_every_pair_once(edge: float) -> None:
    x = KEY.generator().uniform(-3 * edge, 3 * edge, (60, 2))
    reach = min(1.4, edge / 2)
    start, entries = pair_list(x, edge, reach)
    gap = x[:, None] - x
    gap -= edge * np.round(gap / edge)
    first, second = np.nonzero(np.triu(np.hypot(gap[..., 0], gap[..., 1]) < reach, 1))
    np.testing.assert_array_equal(np.repeat(np.arange(60), np.diff(start)), first)
    np.testing.assert_array_equal(entries, second)


@pytest.mark.parametrize("start", ["lattice", "strip"])
@pytest.mark.parametrize("particles", [90, 333, 1000])
def test_starts_do_not_overlap(start: str, particles: int) -> None:
    edge = math.sqrt(particles * math.pi / 4 / 0.5)
    x = start_sites(particles, edge, start)
    gap = x[:, None] - x
    gap -= edge * np.round(gap / edge)
    distance = np.hypot(gap[..., 0], gap[..., 1]) + 10 * np.eye(len(x))
    assert distance.min() == pytest.approx(start_spacing(particles, edge, start))
    assert distance.min() > 1.05


def test_effective_diameter_is_the_published_one() -> None:
    """1.10688 for epsilon = 100 kT, as used by Siebert et al. (2018)."""
    assert effective_diameter(100.0) == pytest.approx(1.10688, abs=5e-6)
    assert repulsion_energy(1.0, 3.0) == 3.0


def test_overlapping_particles_are_named() -> None:
    engine = ActiveEngine(SWIMMERS, 1e-4)
    state = engine.init(KEY)
    positions = state.positions.copy()
    positions[17] = positions[64] + 1e-3
    with pytest.raises(TaskError, match=r"Step 0: particle 17 moves .* Lower `time_step` \(now 0\.0001\)"):
        engine.step(replace(state, positions=positions))


@pytest.mark.parametrize("kind", KINDS)
def test_no_number_is_noticed_within_a_step(kind: str) -> None:
    engine = ActiveEngine(KINDS[kind], 1e-4)
    state = engine.init(KEY)
    positions = state.positions.copy()
    positions[5, 1] = np.nan
    noise = np.zeros((1, 90, 3))
    noise[0, 5, 1] = np.nan
    with pytest.raises(TaskError, match="particle 5 moves"):
        engine.moved(state, noise)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repulsion": 0.0}, "a heading turns"),
        ({"repulsion": 0.5, "speed": 0.0, "area_fraction": 0.05}, "collisions overshoot"),
        ({"repulsion": 100.0}, "pressed together overshoot"),
    ],
)
def test_a_long_time_step_is_refused_with_its_reason(changes: dict[str, float], reason: str) -> None:
    system = ActiveBrownianParticles.model_validate(SWIMMERS.document() | changes)
    limit, why = longest_time_step(system, "lattice")
    assert reason in why
    times = {"sample_every": 10.0, "frame_every": 10.0, "segment": 10.0, "equilibration": 10.0}
    count = math.ceil(10.0 / limit)
    BrownianDynamics(time_step=10.0 / count, **times).suits(system)
    with pytest.raises(ValueError, match=reason):
        BrownianDynamics(time_step=10.0 / (0.9 * count // 1), **times).suits(system)


def test_the_longest_time_step_is_stable() -> None:
    """Packed disks that are pressed together come to rest: the energy stays far below what one overlap would cost."""
    system = ActiveBrownianParticles(particles=64, area_fraction=0.75, speed=50.0, repulsion=100.0)
    engine = ActiveEngine(system, longest_time_step(system, "lattice")[0])
    state = engine.step(engine.init(KEY), 2000)
    assert engine.observables(state)["energy"] < 60.0


def test_too_small_a_box_is_refused() -> None:
    with pytest.raises(ValidationError, match="Take more particles"):
        ActiveBrownianParticles(particles=2, area_fraction=0.8, repulsion=1.0)


def test_times_must_nest() -> None:
    with pytest.raises(ValidationError, match=r"a whole multiple of time_step = 0\.01"):
        BrownianDynamics(time_step=0.01, sample_every=0.015)
