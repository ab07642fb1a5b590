"""Structure: what is wrong with a result on the face of it, before anybody recomputes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from manybody.core.task import Output

Signature: TypeAlias = tuple[tuple[str, str, tuple[int, ...]], ...]


def fault_of(output: Output) -> str:
    """What shows that an output is no result: numbers that are not finite. Empty where nothing does."""
    for name, array in sorted(output.arrays.items()):
        if array.dtype.kind in "fc" and not (finite := np.isfinite(array)).all():
            return f"array `{name}` holds {array.size - int(finite.sum())} of {array.size} numbers that are not finite"
    bad = next((where for where, number in _floats(output.document, "document") if not math.isfinite(number)), None)
    return f"{bad} is not finite" if bad else ""


def signature(output: Output) -> Signature:
    """Names, dtypes and shapes of the arrays, sorted by name: the same for every honest answer to one question."""
    return tuple((name, array.dtype.name, array.shape) for name, array in sorted(output.arrays.items()))


def _floats(value: Any, where: str) -> Iterator[tuple[str, float]]:
    """Every float of a document, with its place."""
    if isinstance(value, float):
        yield where, value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _floats(member, f"{where}.{key}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _floats(member, f"{where}[{index}]")
