"""The engine of dissipative particles: its contract, its bits, its chains and mixtures, its stages and its complaints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Output
from manybody.engines.dissipative import stages
from manybody.engines.dissipative.engine import DissipativeEngine
from manybody.engines.dissipative.known_answers import ideal_end_to_end, unlike_share
from manybody.engines.dissipative.spec import DissipativeDynamics, DissipativeParticles
from manybody.numerics.dissipative import COLUMNS
from manybody.testing.engine import check_engine
from manybody.testing.node import LocalNode

KEY = Key.from_seed(3)
KINDS = {
    "fluid": DissipativeParticles(particles=240),
    "mixture": DissipativeParticles(particles=240, fractions=(0.25, 0.75), excess=((0.0, 15.0), (15.0, -5.0)), aspect=2.0),
    "chains": DissipativeParticles(particles=240, beads=4, fractions=(0.5, 0.5), excess=((0.0, 5.0), (5.0, 0.0))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind):
    """Momentum: 50 steps of 1,600 pairs, each rounding velocities of order 1 by 1e-16 at random: a few 1e-14."""
    check_engine(DissipativeEngine(KINDS[kind]), conserved=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_has_the_same_bits_however_it_is_cut(kind):
    engine = DissipativeEngine(KINDS[kind])
    start = engine.init(KEY)
    whole, pieces = engine.step(start, 60), start
    for steps in (1, 29, 5, 25):
        pieces = engine.step(pieces, steps)
    np.testing.assert_array_equal(whole.positions, pieces.positions)
    np.testing.assert_array_equal(whole.velocities, pieces.velocities)
    assert whole.heat == pytest.approx(pieces.heat, rel=1e-12)


@pytest.mark.parametrize(("stride", "samples"), [(450, 1), (100, 5)])
def test_records_are_those_of_every_stride_whatever_a_call_holds(stride, samples):
    """A compiled call holds 416 steps of 240 particles: less than a stride here, and four of them there."""
    engine = DissipativeEngine(KINDS["fluid"])
    start = engine.init(KEY)
    end, found = engine.record(start, stride, samples)
    state, rows = start, []
    for _ in range(samples):
        state, _ = engine.record(state, stride - 1, 1)
        state, row = engine.record(state, 1, 1)
        rows.append(row[0])
    np.testing.assert_array_equal(end.positions, state.positions)
    np.testing.assert_array_equal(found[:, :-1], np.array(rows)[:, :-1])
    np.testing.assert_allclose(found[:, -1], np.array(rows)[:, -1], rtol=1e-10)  # heat is added up in another order


def test_start_has_its_species_chains_and_temperature():
    system = KINDS["chains"]
    state = DissipativeEngine(system).init(KEY)
    assert (system.counts, tuple(np.bincount(state.species))) == ((120, 120), (120, 120))
    assert (state.species.reshape(-1, 4) == state.species[::4, None]).all()
    assert np.abs(state.velocities.sum(axis=0)).max() < 1e-12
    # 717 squares: their mean is 1 within four deviations of sqrt(2 / 717)
    assert (state.velocities**2).sum() / (3 * 239) == pytest.approx(1, abs=4 * math.sqrt(2 / 717))
    assert KINDS["mixture"].counts == (60, 180)
    assert KINDS["mixture"].box[2] == pytest.approx(2 * KINDS["mixture"].box[0])


def test_ideal_chains_are_random_walks_at_any_time_step():
    """<R^2> = 3 (beads - 1) kT / C without repulsion: springs are harmonic, where the splitting errs in velocities alone."""
    system = DissipativeParticles(particles=600, repulsion=0.0, beads=5, spring=4.0, temperature=0.5, friction=20.0)
    engine = DissipativeEngine(system, 0.1)
    squares, state = [], engine.init(KEY)
    state = replace(state, positions=np.repeat(state.positions[::5], 5, axis=0))  # collapsed, to see them unfold
    for _ in range(40):  # the slowest mode of a chain relaxes in about 2
        state = engine.step(state, 20)
        squares.append(((state.positions[4::5] - state.positions[::5]) ** 2).sum(axis=1).mean())
    exact = ideal_end_to_end(5, 4.0, 0.5)
    error = exact * math.sqrt(2 / 3 / (120 * 15))  # of 120 chains, at 15 times at least that are independent
    assert np.mean(squares[10:]) == pytest.approx(exact, abs=4 * error)


def test_species_that_repel_each_other_part_and_those_that_are_names_mix():
    """For names alone, pairs in range are unlike as often as any pair: 0.5 within four deviations of 20 x 700 pairs."""
    deviations = {}
    for added in (0.0, 50.0):
        system = DissipativeParticles(particles=240, fractions=(0.5, 0.5), excess=((0.0, added), (added, 0.0)))
        engine = DissipativeEngine(system)
        _, rows = engine.record(engine.step(engine.init(KEY), 200), 50, 20)
        found = dict(zip(COLUMNS, rows.mean(axis=0), strict=True))
        deviations[added] = 1 - found["unlike_pairs"] / found["pairs"] / unlike_share(system.counts)
    assert abs(deviations[0.0]) < 4 / math.sqrt(20 * 700)
    assert deviations[50.0] > 0.3


def tasks_of(system: DissipativeParticles, **changes):
    times = {"equilibration": 2.0, "duration": 2.0, "segment": 1.0, "sample_every": 0.2, "frame_every": 0.4}
    return DissipativeDynamics(**(times | changes)).plan(system, seed=4, repeat=0)[0]


def test_a_segment_goes_on_from_where_the_one_before_ended_and_resumes_with_the_same_bits():
    first, second, _ = tasks_of(KINDS["chains"], segment=1.2, duration=2.4)
    node = LocalNode()
    start = stages.equilibrate(first, {}, LocalNode())
    whole = stages.produce(second, {"state": start}, node)
    assert node.told[-1].fraction == 1.0
    assert len(node.kept) == len(whole.arrays["frames"]) == 3
    resumed = stages.produce(second, {"state": start}, LocalNode(node.kept[1]))
    assert resumed.document == whole.document
    for name, values in whole.arrays.items():
        np.testing.assert_array_equal(values, resumed.arrays[name], err_msg=name)
    before, after = start.arrays["unwrapped"], whole.arrays["unwrapped"]
    assert ((after - before) ** 2).sum(axis=1).mean() < 1.2**2 * 3 * 2  # nobody outran twice the thermal speed
    with pytest.raises(TaskError, match="expected an input `state`; got none"):
        stages.produce(second, {}, LocalNode())
    broken = Output(dict(start.arrays) | {"velocities": start.arrays["velocities"][1:]}, {})
    with pytest.raises(TaskError, match=r"expected finite `velocities` of shape \[240, 3\]; got shape \[239, 3\]"):
        stages.produce(second, {"state": broken}, LocalNode())


def test_a_run_that_explodes_says_where_and_what_to_do():
    engine = DissipativeEngine(KINDS["fluid"])
    state = engine.init(KEY)
    wild = state.velocities.copy()
    wild[17] = 1e3
    with pytest.raises(TaskError, match=r"Step 0: particle 17 .* Lower `time_step` \(now 0.02\)"):
        engine.step(replace(state, velocities=wild), 10)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"particles": 20}, "at least 24 at this density"),
        ({"fractions": (0.5, 0.4)}, "shares above 0 that add up to 1"),
        ({"beads": 3}, "a multiple of the 3 beads of a chain"),
        ({"fractions": (0.001, 0.999)}, "some of each of 2 species"),
        ({"excess": ((0.0, 1.0), (1.0, 0.0))}, r"1 row\(s\) of 1 numbers"),
        ({"fractions": (0.5, 0.5), "excess": ((0.0, 1.0), (2.0, 0.0))}, "the same for a with b as for b with a"),
        ({"fractions": (0.5, 0.5), "excess": ((0.0, -30.0), (-30.0, 0.0))}, "not below -25, so that nothing attracts"),
    ],
)
def test_impossible_systems_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        DissipativeParticles(**({"particles": 100} | changes))


def test_time_steps_too_long_for_the_forces_are_refused():
    with pytest.raises(ValueError, match=r"time_step of at most 0.0707"):
        DissipativeDynamics(time_step=0.1, sample_every=0.2).suits(DissipativeParticles())
    with pytest.raises(ValueError, match=r"time_step of at most 0.025"):
        DissipativeDynamics(time_step=0.04).suits(DissipativeParticles(beads=4, spring=100.0))
    DissipativeDynamics(time_step=0.1, sample_every=0.2).suits(DissipativeParticles(repulsion=0.0))
