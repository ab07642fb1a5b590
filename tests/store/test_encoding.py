"""Outputs as bytes and back."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import TaskError
from manybody.core.task import Output
from manybody.store.encoding import DTYPES, decode, encode

NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=12).filter(lambda name: name != "__metadata__")
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays_of.arrays(np.dtype(dtype), SHAPES))
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
DOCUMENTS = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner))
)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(NAMES, ARRAYS, max_size=4), DOCUMENTS)
def test_every_output_comes_back_bit_for_bit(arrays: dict[str, np.ndarray], document: dict[str, Any]) -> None:
    data = encode(Output(arrays, document))
    back = decode(data)
    assert back.document == document
    assert back.arrays.keys() == arrays.keys()
    assert all(same_bits(back.arrays[name], array) for name, array in arrays.items())
    assert encode(back) == data


def test_the_bytes_do_not_depend_on_the_order_of_making() -> None:
    one = Output({"a": np.ones(3), "b": np.zeros(2, dtype="f4")}, {"x": 1, "y": [1, 2]})
    other = Output({"b": np.zeros(2, dtype="f4"), "a": np.ones(3)}, {"y": (1, 2), "x": 1})
    assert encode(one) == encode(other)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12.0)[::2],
        np.arange(3, dtype=">f8"),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.broadcast_to(np.float32(2.5), (2, 2)),
        np.arange(5)[::-1],
    ],
    ids=["columns first", "strided", "big-endian", "transposed", "broadcast", "reversed"],
)
def test_the_memory_layout_is_no_part_of_the_result(array: np.ndarray) -> None:
    plain = np.array(array.tolist(), dtype=array.dtype.newbyteorder("="))
    assert encode(Output({"x": array})) == encode(Output({"x": plain}))
    assert np.array_equal(decode(encode(Output({"x": array}))).arrays["x"], array)


def test_non_finite_numbers_in_arrays_are_kept() -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0])
    assert same_bits(decode(encode(Output({"x": values}))).arrays["x"], values)


def test_what_was_read_may_be_changed() -> None:
    array = decode(encode(Output({"x": np.zeros(3)}))).arrays["x"]
    array[0] = 1.0
    assert array.flags.writeable


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (Output({"x": np.array([{}, None], dtype=object)}), ("array `x`", "object", "float64")),
        (Output({"x": np.array(["a"])}), ("array `x`", "<U1", "document")),
        (Output({"psi": np.array([1j])}), ("array `psi`", "complex128", "real and imaginary")),
        (Output({"x": np.zeros(2, dtype=[("a", "f8")])}), ("array `x`", "expected a dtype")),
        (Output({"x": 3.0}), ("array `x`", "float", "document")),
        (Output({"__metadata__": np.zeros(1)}), ("__metadata__", "Rename")),
        (Output(document={"energy": {"mean": [1.0, float("nan")]}}), ("document.energy.mean[1]", "nan", "TaskError")),
        (Output(document={"energy": float("inf")}), ("document.energy", "inf")),
        (Output(document={"n": np.float64(1.0) * np.float32(2)}), ()),
        (Output(document={"n": np.int64(3)}), ("document.n", "int64", ".item()")),
        (Output(document={"a": {3: 1}}), ("document.a", "3", "text")),
        (Output(document={"a": "\ud800"}), ("document", "surrogate")),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_name(output: Output, named: tuple[str, ...]) -> None:
    if not named:  # numpy's float64 is a float, and is kept as one
        assert decode(encode(output)).document == {"n": 2.0}
        return
    with pytest.raises(TaskError) as caught:
        encode(output)
    for words in named:
        assert words in str(caught.value)
