"""What a split problem costs on the network at hand: figures measured with real tasks, for `numerics.rounds` to choose by.

A task that moves b bytes and advances c cell steps is expected to take latency + b / bandwidth + c / rate. Times have a
floor and a long tail upwards (somebody else's load), so each kind of task is timed several times and the median counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from manybody.core.errors import TaskError
from manybody.core.protocols import Backend
from manybody.core.task import Task
from manybody.numerics.rounds import Costs


@dataclass(frozen=True)
class Probe:
    """A task to be timed, with what it moves and computes. `inputs` maps names to result digests."""

    task: Task
    inputs: Mapping[str, str]
    nbytes: int
    cell_steps: int


@dataclass(frozen=True)
class Timing:
    """What a task moved and computed, and the seconds from its submission until its result was known."""

    nbytes: int
    cell_steps: int
    seconds: float


def fit(timings: Sequence[Timing], workers: int) -> Costs:
    """The costs that explain the timings best, none of them negative: least squares of relative deviations.

    Expects timings of at least three kinds of task that differ in bytes and in cell steps; raises ValueError where
    they leave the figures open.
    """
    seconds = np.array([timing.seconds for timing in timings])
    terms = np.array([[1.0, timing.nbytes, timing.cell_steps] for timing in timings])
    scale = terms.max(axis=0, initial=1e-300)
    if np.linalg.matrix_rank(terms / scale) < 3:
        raise ValueError("expected tasks that differ in bytes and in cell steps independently; add probes of other sizes")
    found = nnls(terms / scale / seconds[:, None], np.ones(len(seconds)))[0] / scale
    latency, per_byte, per_cell = (float(value) for value in found)
    largest = {"bytes": float(terms[:, 1].max()), "cells": float(terms[:, 2].max())}
    quickest = float(seconds.min())  # where a term does not show, it is bounded by what would have shown
    return Costs(
        latency_s=latency,
        bytes_per_s=1 / per_byte if per_byte > 0 else 100 * largest["bytes"] / quickest,
        cell_steps_per_s=1 / per_cell if per_cell > 0 else 100 * largest["cells"] / quickest,
        workers=workers,
    )


def measure(backend: Backend, probes: Sequence[Probe], repeats: int = 5) -> Costs:
    """Run every probe `repeats` times, one at a time, and fit the medians. The first run of each warms up and is left out.

    Raises `TaskError` where a probe fails.
    """
    timings = []
    for number, probe in enumerate(probes):
        seconds = [time_task(backend, f"probe-{number}-{repeat}", probe.task, probe.inputs)[1] for repeat in range(repeats + 1)]
        timings.append(Timing(probe.nbytes, probe.cell_steps, float(np.median(seconds[1:]))))
    return fit(timings, max(1, math.floor(sum(node.workers for node in backend.nodes()))))


def time_task(backend: Backend, attempt: str, task: Task, inputs: Mapping[str, str]) -> tuple[str, float]:
    """The result digest of a task, and the seconds from its submission until that was known."""
    begin = time.perf_counter()
    backend.submit(attempt, task, inputs)
    for event in backend.events():
        if event.attempt == attempt and event.kind == "finished":
            return event.result, time.perf_counter() - begin
        if event.attempt == attempt and event.kind in ("failed", "lost"):
            raise TaskError(f"{task.label}, to be timed, {event.kind}: {event.reason}")
    raise TaskError(f"{task.label}, to be timed, was given up by the backend. Look at `manybody nodes`.")
