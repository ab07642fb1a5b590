"""Dissipative particle dynamics: momentum, temperature, noise, structure and pressure where they are known."""

import math

import numpy as np
import pytest

from manybody.core.errors import InputError, TaskError
from manybody.core.random import Key
from manybody.numerics.dissipative import COLUMNS, LEAST_EDGE, DissipativeFluid

KEY = Key.from_seed(5)
BOX = (6.0, 6.0, 6.0)
COUNT = 648  # density 3
KINETIC, HEAT = COLUMNS.index("kinetic_energy"), COLUMNS.index("heat")


@pytest.mark.parametrize("box", [(2.1, 3.5, 9.0), (2.0, 2.0, 2.0), BOX])
def test_forces_and_records_are_those_of_all_pairs(box):
    """Also in boxes one and two cells wide, for positions far outside of the box, two species and chains."""
    x, v = np.random.default_rng(1).uniform(-9, 9, (120, 3)), np.random.default_rng(2).standard_normal((120, 3))
    species = np.arange(120) // 3 % 2
    table = np.array([[25.0, 40.0], [40.0, 10.0]])
    fluid = DissipativeFluid(box, ((25.0, 40.0), (40.0, 10.0)), beads=3, spring=4.0)
    apart = x[:, None] - x
    apart -= np.array(box) * np.round(apart / np.array(box))
    r = np.sqrt((apart**2).sum(-1)) + 2 * np.eye(120)
    near, a = r < 1, table[species[:, None], species]
    pull = (near * a * (1 / r - 1))[..., None] * apart
    f = pull.sum(axis=1)
    bonds = x[1:] - x[:-1]
    bonds[2::3] = 0
    f[:-1] += 4.0 * bonds
    f[1:] -= 4.0 * bonds
    row = dict(zip(COLUMNS, fluid.look(x, v, species), strict=True))
    close = {"rel": 1e-9, "abs": 1e-9}
    assert row["squared_force"] == pytest.approx((f**2).sum(), **close)
    assert row["energy"] == pytest.approx((0.25 * near * a * (1 - r) ** 2).sum() + 2 * (bonds**2).sum(), **close)
    virial = 0.5 * (pull * apart).sum((0, 1)) - 4 * (bonds**2).sum(0)
    assert [row[f"virial_{axis}"] for axis in "xyz"] == pytest.approx(virial, **close)
    assert row["laplacian"] == pytest.approx((near * a * (3 - 2 / r)).sum() + 2 * 3 * 4.0 * 80, **close)
    assert (row["pairs"], row["unlike_pairs"]) == (near.sum() / 2, (near & (species[:, None] != species)).sum() / 2)
    assert row["fourth_moment"] == pytest.approx((v**4).sum(), **close)


def test_virial_and_laplacian_are_derivatives_of_the_energy():
    """By central differences: stretching the box along x, and moving each particle along each axis."""
    box, x = np.array([2.3, 2.6, 2.9]), np.random.default_rng(4).uniform(0, 2, (30, 3))

    def energy(x: np.ndarray, box: np.ndarray = box) -> float:
        return float(DissipativeFluid(tuple(box)).look(x, np.zeros_like(x))[0])

    row = dict(zip(COLUMNS, DissipativeFluid(tuple(box)).look(x, np.zeros_like(x)), strict=True))
    wide, narrow = (np.array([1 + strain, 1, 1]) for strain in (1e-6, -1e-6))
    slope = (energy(x * wide, box * wide) - energy(x * narrow, box * narrow)) / 2e-6
    assert row["virial_x"] == pytest.approx(-slope, rel=1e-6)
    moves = 1e-4 * np.eye(x.size).reshape(-1, *x.shape)
    curvature = sum(energy(x + move) + energy(x - move) - 2 * energy(x) for move in moves) / 1e-8
    assert row["laplacian"] == pytest.approx(curvature, rel=1e-3)


@pytest.mark.parametrize("time_step", [0.1, 0.4])
def test_the_ideal_fluid_has_its_temperature_at_any_time_step(time_step):
    """Without repulsion the scheme keeps the Maxwell distribution and uniform density exactly, however long the step."""
    fluid = DissipativeFluid(BOX, repulsion=0.0, friction=20.0, temperature=0.05, time_step=time_step)
    x, v = fluid.start(COUNT, KEY)
    x, v, rows = fluid.advance(x, 0.5 * v, KEY, 0, stride=round(0.8 / time_step), samples=24)  # cold, to see it warm up
    kinetic = rows[5:, KINETIC]
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
    kept = rows[:, 0] + rows[:, KINETIC] - rows[:, HEAT]  # all but the heat: it fluctuates as velocity Verlet's energy does
    finer = DissipativeFluid(BOX, time_step=0.01)
    _, _, twice = finer.advance(x, v, KEY, 50, 2, samples=steps)
    fine = twice[:, 0] + twice[:, KINETIC] - twice[:, HEAT]
    assert np.ptp(kept) < 0.01 * rows[:, KINETIC].mean()
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
    excess = rows[20:, 1:4].sum(axis=1) / (3 * edge**3)
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
    with pytest.raises(InputError, match=f"edges of at least {LEAST_EDGE:g}"):
        DissipativeFluid((6.0, 6.0, 1.9))
    with pytest.raises(InputError, match="not negative"):
        DissipativeFluid(BOX, friction=-1.0)
