"""Dissipative particle dynamics: momentum, temperature, noise, structure and pressure where they are known."""

import math

import numpy as np
import pytest

from manybody.core.errors import InputError, TaskError
from manybody.core.random import Key
from manybody.numerics.dissipative import SKIN, DissipativeFluid, pair_list, pair_noise

KEY = Key.from_seed(5)
BOX = (6.0, 6.0, 6.0)
COUNT = 648  # density 3


def test_the_list_holds_each_pair_once_in_order():
    x = np.random.default_rng(1).uniform(-9, 9, (300, 3))
    for box in (np.array([3.0, 5.0, 9.0]), np.array(BOX)):
        start, entries = pair_list(x, box, 1.4)
        apart = x[:, None] - x
        near = ((apart - box * np.round(apart / box)) ** 2).sum(-1) < 1.4**2
        expected = [np.flatnonzero(near[i, i + 1 :]) + i + 1 for i in range(len(x))]
        assert np.array_equal(entries, np.concatenate(expected))
        assert np.array_equal(np.diff(start), [len(row) for row in expected])


def test_pair_noise_is_standard_normal_and_depends_on_each_of_its_names():
    """Moments to four standard errors of 40,000 numbers, and no correlation between neighbouring counters."""
    word, n = np.uint64(77), 200
    noise = np.array([[pair_noise(word, 3, i, j) for j in range(n)] for i in range(n)])
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (noise**power).mean() == pytest.approx(moment, abs=4 * math.sqrt(spread / n**2))
    for other in (noise[1:], noise[:, 1:], np.array([[pair_noise(word, 4, i, j) for j in range(n)] for i in range(n)])):
        same = noise[: other.shape[0], : other.shape[1]]
        assert (same * other).mean() == pytest.approx(0, abs=4 / math.sqrt(same.size))


@pytest.mark.parametrize("time_step", [0.1, 0.4])
def test_the_ideal_fluid_has_its_temperature_at_any_time_step(time_step):
    """Without repulsion the scheme keeps the Maxwell distribution and uniform density exactly, however long the step."""
    fluid = DissipativeFluid(BOX, repulsion=0.0, friction=20.0, temperature=0.05, time_step=time_step)
    x, v = fluid.start(COUNT, KEY)
    x, v, rows = fluid.advance(x, 0.5 * v, KEY, 0, stride=round(0.8 / time_step), samples=24)  # cold, to see it warm up
    kinetic = rows[5:, 2]
    freedom = 3 * (COUNT - 1)
    # The kinetic energy is a sum of `freedom` squares, forgotten within a sample: velocities relax at 4 pi rho gamma / 90 = 8.
    error = 4 * math.sqrt(2 / (freedom * len(kinetic)))
    assert 2 * kinetic.mean() / (freedom * fluid.temperature) == pytest.approx(1, abs=error)
    apart = x[:, None] - x
    squares = ((apart - 6 * np.round(apart / 6)) ** 2).sum(-1)[np.triu_indices(COUNT, 1)]
    for near, far in ((0, 0.5), (0.5, 1.0), (1.0, 2.0)):  # g(r) = 1
        expected = COUNT * (COUNT - 1) / 2 * 4 / 3 * math.pi * (far**3 - near**3) / 6**3
        assert ((squares >= near**2) & (squares < far**2)).sum() == pytest.approx(expected, abs=4 * math.sqrt(expected))


def test_momentum_is_kept_to_round_off_and_energy_is_accounted_for():
    fluid = DissipativeFluid(BOX, time_step=0.02)
    x, v = fluid.start(COUNT, KEY)
    x, v, _ = fluid.advance(x, v, KEY, 0, 50)
    before = v.sum(axis=0)
    steps = 100
    _, after, rows = fluid.advance(x, v, KEY, 50, 1, samples=steps)
    pairs = 0.5 * COUNT * 3 * 4 / 3 * math.pi  # each of which rounds a velocity, at random
    assert np.abs(after.sum(axis=0) - before).max() < 10 * math.sqrt(steps * pairs) * 2.3e-16 * np.abs(v).max()
    kept = rows[:, 0] + rows[:, 2] - rows[:, 3]  # all but the heat: it fluctuates as velocity Verlet's energy does
    finer = DissipativeFluid(BOX, time_step=0.01)
    _, _, twice = finer.advance(x, v, KEY, 50, 2, samples=steps)
    fine = twice[:, 0] + twice[:, 2] - twice[:, 3]
    assert np.ptp(kept) < 0.01 * rows[:, 2].mean()
    assert np.ptp(fine) < 0.5 * np.ptp(kept), "order 2: about a quarter"


def test_a_path_has_the_same_bits_however_it_is_cut():
    fluid = DissipativeFluid(BOX)
    x, v = fluid.start(COUNT, KEY)
    whole = fluid.advance(x, v, KEY, 0, 30)
    first = fluid.advance(x, v, KEY, 0, 13)
    rest = fluid.advance(first[0], first[1], KEY, 13, 17)
    assert np.array_equal(whole[0], rest[0])
    assert np.array_equal(whole[1], rest[1])
    other = fluid.advance(x, v, KEY.derive("other"), 0, 30)
    assert not np.array_equal(whole[1], other[1])


def test_the_dilute_gas_has_the_pressure_of_its_second_virial_coefficient():
    """p = rho kT (1 + B2 rho + B3 rho^2), B2 = 2 pi int (1 - exp(-u/kT)) r^2 dr; with B3 bounded by that of hard spheres."""
    density, count = 0.06, 1000
    edge = (count / density) ** (1 / 3)
    fluid = DissipativeFluid((edge, edge, edge), repulsion=25.0, friction=30.0, time_step=0.04)
    x, v = fluid.start(count, KEY)
    _, _, rows = fluid.advance(x, v, KEY, 0, stride=25, samples=60)
    r = (np.arange(4000) + 0.5) / 4000
    second = 2 * math.pi * float((-np.expm1(-12.5 * (1 - r) ** 2) * r**2).sum()) / 4000
    excess = rows[20:, 1] / (3 * edge**3)
    error = 4 * excess.std() / math.sqrt(len(excess) / 3)  # encounters last about a sample: at most 3 of them correlate
    third = 5 / 8 * (2 * math.pi / 3) ** 2 * density**3  # hard spheres of diameter 1 are larger in every respect
    assert excess.mean() == pytest.approx(second * density**2, abs=error + third)
    assert error < 0.2 * second * density**2


def test_an_exploding_run_names_step_and_particle_and_bad_input_is_refused():
    fluid = DissipativeFluid(BOX)
    x, v = fluid.start(COUNT, KEY)
    v[7] = math.nan
    with pytest.raises(TaskError, match=r"Step 3: particle 7 .* Lower `time_step`"):
        fluid.advance(x, v, KEY, 3, 5)
    with pytest.raises(InputError, match=f"edges of at least {2 * (1 + SKIN):g}"):
        DissipativeFluid((6.0, 6.0, 2.0))
    with pytest.raises(InputError, match="not negative"):
        DissipativeFluid(BOX, friction=-1.0)
