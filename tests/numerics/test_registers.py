"""Choosing among eight numbers at a time, against NumPy, on processors with and without an instruction for it."""

import numpy as np
import pytest
from numba import njit

from manybody.numerics.registers import LANES, bits_below, close_bits, copying, count_bits

one_by_one, pressed = copying(presses=False), copying(presses=True)  # the second compiles anywhere, if into slower code


@njit
def each_way(source, start, bits, shift, target, to):
    one_by_one(source, start, bits, shift, target[0], to)
    pressed(source, start, bits, shift, target[1], to)


@pytest.mark.parametrize(("kind", "to_kind"), [("f8", "f4"), ("i4", "i4")])
def test_chosen_numbers_are_copied_next_to_each_other(kind, to_kind):
    generator = np.random.default_rng(4)
    source, shift = (100 * generator.standard_normal(40)).astype(kind), np.dtype(kind).type(7)
    for bits in (0, 1, 0b10000000, 0b01100101, 0b11111111, *generator.integers(0, 256, 20)):
        target = np.full((2, 40), -1).astype(to_kind)
        each_way(source, 11, bits, shift, target, 5)
        wanted = [source[11 + k] - shift for k in range(LANES) if bits >> k & 1]
        for row in target:
            assert (row[:5] == -1).all()
            assert (row[5 : 5 + len(wanted)] == np.array(wanted).astype(to_kind)).all()
            assert (row[5 + LANES :] == -1).all(), "written beyond one register"


@njit
def found_in(values, start, limit, x, own, reach2):
    return bits_below(values, start, limit), close_bits(x[0], x[1], x[2], start, own, reach2)


def test_bits_tell_what_is_below_and_what_is_close():
    generator = np.random.default_rng(5)
    values = generator.standard_normal(30)
    values[14:16] = np.nan, -np.inf
    x, own = generator.standard_normal((3, 30)).astype("f4"), generator.standard_normal((3, LANES)).astype("f4")
    x[1, 13] = np.nan
    below, close = found_in(values, 9, 0.2, x, own, np.float32(0.4))
    assert [below >> k & 1 for k in range(LANES)] == (values[9:17] < 0.2).astype(int).tolist()
    least = ((x[:, 9:17, None] - own[:, None, :]) ** 2).sum(axis=0).min(axis=1)
    assert [close >> k & 1 for k in range(LANES)] == (least < 0.4).astype(int).tolist()
    assert below >> LANES == close >> LANES == 0


def test_bits_are_counted():
    count = njit(lambda bits: count_bits(bits))
    assert [count(bits) for bits in (0, 1, 0b10110, 255)] == [0, 1, 3, 8]
