"""The tasks that backends are measured with: 5 ms of computing that return 1 MB, and empty ones; all queued, or one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from manybody.core.task import Task
from manybody.testing import methods

UNIT = "tasks/s"


@dataclass(frozen=True)
class Kind:
    """Tasks that compute for `cpu_s` and return `nbytes`, `number` of them a round, queued all `at_once` or each alone."""

    cpu_s: float
    nbytes: int
    number: int
    at_once: bool
    target: float = 0.0  # of the bare engine's rate; 0 where none is set


KINDS = {
    "1MB-results": Kind(0.005, 1_000_000, 200, at_once=True, target=0.5),
    "1MB-one-at-a-time": Kind(0.005, 1_000_000, 60, at_once=False, target=0.5),
    "empty-tasks": Kind(0.0, 0, 400, at_once=True),
    "empty-one-at-a-time": Kind(0.0, 0, 60, at_once=False),
}
_SEEDS: Iterator[int] = count()


def rate(compute: Callable[[list[Task]], int], kind: Kind) -> float:
    """Tasks a second, from the first submission to the last result; `compute` returns how many have come."""
    template = methods.task("fill", cpu_s=kind.cpu_s, nbytes=kind.nbytes)
    tasks = [template.model_copy(update={"seed": next(_SEEDS)}) for _ in range(kind.number)]
    start = time.perf_counter()
    done = compute(tasks) if kind.at_once else sum(compute([each]) for each in tasks)
    if done != kind.number:
        raise RuntimeError(f"expected {kind.number} results; got {done}")
    return kind.number / (time.perf_counter() - start)


def fill(task: Task) -> np.ndarray:
    """What a peer has its processes compute: the very stage, its array as it is."""
    found: np.ndarray = methods.fill(task, {}, None).arrays["bytes"]  # type: ignore[arg-type]  # it asks nothing of a context
    return found
