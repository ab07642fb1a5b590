"""The kernels against a plain twin, bit for bit, and what a split must not change."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.numerics.stencils import HALO, REACH, STAGES, Slab, flux_weights

SPACING, STEP = 1 / 48, 0.004
ACROSS, ALONG = flux_weights(1.0, 0.01, SPACING, STEP), flux_weights(-0.7, 0.01, SPACING, STEP)


def plain_step(field: np.ndarray) -> np.ndarray:
    """One step of a whole periodic field, in numpy: every operation rounded, in the order of the kernel."""
    kind = field.dtype.type

    def divergence(w: np.ndarray) -> np.ndarray:
        total = []
        for axis, weights in ((0, ACROSS), (1, ALONG)):
            a = [kind(weight) for weight in weights]
            behind, ahead, beyond = np.roll(w, 1, axis), np.roll(w, -1, axis), np.roll(w, -2, axis)
            flux = a[0] * behind + a[1] * w + a[2] * ahead + a[3] * beyond
            total.append(flux - np.roll(flux, 1, axis))
        return total[0] + total[1]

    stage = field
    for share in STAGES:
        stage = field - kind(share) * divergence(stage)
    return stage


def advanced(field: np.ndarray, steps: int) -> np.ndarray:
    """A whole field some steps later, by the kernel, with one wide halo."""
    reach = HALO * steps
    slab = Slab(len(field), reach, ACROSS, ALONG, field.shape[1], field.dtype)
    slab.load(
        np.tile(field, (steps, 1))[-reach:] if reach > len(field) else field[-reach:], field, np.tile(field, (steps, 1))[:reach]
    )
    inset = 0
    for _ in range(steps):
        inset = slab.advance(inset)
    return slab.values.copy()


def random_field(rows: int, columns: int, kind: str = "float64") -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, columns)).astype(kind)


@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("columns", [16, 30, 50, 67])  # with and without a rest of the vector width
def test_kernel_equals_its_plain_twin_bit_for_bit(kind: str, columns: int) -> None:
    field = random_field(48, columns, kind)
    expected = plain_step(plain_step(field))
    assert expected.dtype == kind
    np.testing.assert_array_equal(advanced(field, 2), expected)


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(8, 56), max_size=5), steps=st.integers(1, 3))
def test_any_rows_alone_give_the_bits_they_have_in_the_whole(cuts: set[int], steps: int) -> None:
    field = random_field(64, 20)
    whole = advanced(field, steps)
    bounds = [0, *sorted(cuts), 64]
    reach = HALO * steps
    for first, last in pairwise(bounds):
        around = np.take(field, range(first - reach, last + reach), axis=0, mode="wrap")
        slab = Slab(last - first, reach, ACROSS, ALONG, 20, field.dtype)
        slab.load(around[:reach], around[reach:-reach], around[-reach:])
        inset = 0
        for _ in range(steps):
            inset = slab.advance(inset)
        assert inset == reach
        np.testing.assert_array_equal(slab.values, whole[first:last])


def test_rows_and_columns_are_alike() -> None:
    """Swapping x and y, velocities included, swaps the result: nothing depends on the direction of the split."""
    field = random_field(48, 48)
    other = Slab(48, HALO, ALONG, ACROSS, 48, field.dtype)
    turned = np.ascontiguousarray(field.T)
    other.load(turned[-HALO:], turned, turned[:HALO])
    other.advance()
    np.testing.assert_array_equal(other.values.T, advanced(field, 1))


def test_a_constant_stays_to_the_bit() -> None:
    np.testing.assert_array_equal(advanced(np.full((16, 16), 1 / 3), 2), np.full((16, 16), 1 / 3))


def test_halo_is_as_wide_as_the_stages_reach() -> None:
    """A change 9 rows away leaves a step as it is, one 8 rows away does not."""
    assert REACH * len(STAGES) == HALO
    field = random_field(64, 16)
    for distance, changes in ((HALO, True), (HALO + 1, False)):
        other = field.copy()
        other[32 + distance] += 1.0
        assert (advanced(other, 1)[32] != advanced(field, 1)[32]).any() == changes


def test_flux_is_exact_for_cubics() -> None:
    """On cell averages of a polynomial of degree 3 the face's value and gradient are exact."""
    cells = np.arange(-1, 3)
    for power in range(4):
        averages = ((cells + 1.0) ** (power + 1) - cells.astype(float) ** (power + 1)) / (power + 1)
        assert flux_weights(1.0, 0.0, 1.0, 1.0) @ averages == pytest.approx(1.0**power, rel=1e-14)  # the face is at 1
        assert flux_weights(0.0, 1.0, 1.0, 1.0) @ averages == pytest.approx(-power, abs=1e-13)
