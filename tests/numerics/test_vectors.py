"""Eight doubles as one value, against NumPy."""

import numpy as np
from numba import njit

from manybody.numerics.vectors import LANES, add, counting, load, move_up, multiply, multiply_add, store, total, zeros


@njit
def each(values, start, factor, out):
    mine, other = load(values, start), load(values, start + 1)
    found = (zeros(), counting(), add(mine, factor), add(mine, other), multiply(mine, factor), multiply(mine, other))
    for place in range(6):
        store(found[place], out, place * LANES)
    store(multiply_add(mine, factor, other), out, 6 * LANES)
    store(multiply_add(mine, other, mine), out, 7 * LANES)
    store(move_up(mine), out, 8 * LANES)
    return total(mine)


@njit
def gathered(values, count):
    sums = zeros()
    for k in range(count):
        sums = multiply_add(load(values, LANES * k), k + 1.0, sums)
    return total(sums)


def test_each_operation_gives_what_it_says_and_writes_no_more():
    values, out = np.random.default_rng(6).standard_normal((5, 6)), np.full((10, LANES), 7.0)
    sum_of = each(values, 3, 1.5, out)
    flat = values.ravel()
    mine, other = flat[3:11], flat[4:12]
    wanted = [0 * mine, np.arange(8), mine + 1.5, mine + other, 1.5 * mine, mine * other, 1.5 * mine + other, mine * other + mine]
    np.testing.assert_allclose(out[:8], wanted, rtol=1e-15, atol=1e-15)
    assert out[8].tolist() == [0.0, *mine[:-1]]
    assert (out[9] == 7.0).all()
    assert abs(sum_of - mine.sum()) < 1e-14


def test_values_are_carried_around_a_loop():
    values = np.arange(40.0)
    assert gathered(values, 5) == sum((k + 1) * values[8 * k : 8 * k + 8].sum() for k in range(5))
