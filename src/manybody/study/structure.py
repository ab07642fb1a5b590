"""Structure: what is wrong with a result on the face of it, before anybody recomputes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from manybody.core.digest import canonical_json
from manybody.core.task import Output, Task

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


class Shapes:
    """The signatures of results by kind of task: tasks that differ in nothing but seed, repeat and inputs have the same."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[Signature, set[str]]] = {}

    def suspects(self, task: Task, output: Output) -> set[str]:
        """The tasks of its kind, a new result counted in, whose results do not look as more than half of them do."""
        seen = self._seen.setdefault(_kind(task), {})
        for tasks in seen.values():
            tasks.discard(task.digest)
        seen.setdefault(signature(output), set()).add(task.digest)
        if len(seen) == 1:
            return set()
        total = sum(len(tasks) for tasks in seen.values())
        return {digest for tasks in seen.values() if 2 * len(tasks) <= total for digest in tasks}


def _kind(task: Task) -> str:
    """What decides the signature of a task's result."""
    names = sorted(task.inputs)
    return canonical_json([task.method, task.stage, task.version, task.system, task.parameters, names])


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
