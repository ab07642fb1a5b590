"""What a split problem costs on the network at hand: figures measured with real tasks, for `numerics.rounds` to choose by.

A task that moves b bytes and advances c cell steps is expected to take latency + b / bandwidth + c / rate. Times have a
floor and a long tail upwards (somebody else's load), so each kind of task is timed several times and the median counts.
"""

from __future__ import annotations

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
    """Run every probe on all workers at once, as a round does, `repeats` times, and fit the medians.

    The first run of each warms up and is left out. Without `dispatch_s`, which is the coordinator's and not the
    backend's. Raises `TaskError` where a probe fails.
    """
    workers = max(1, sum(node.workers for node in backend.nodes()))
    timings = []
    for number, probe in enumerate(probes):
        seconds = [time_round(backend, f"probe-{number}-{repeat}", probe, workers) for repeat in range(repeats + 1)]
        timings.append(Timing(probe.nbytes, probe.cell_steps, float(np.median(seconds[1:]))))
    return fit(timings, workers).model_copy(update={"dispatch_s": 0.0})


def time_round(backend: Backend, name: str, probe: Probe, copies: int) -> float:
    """Seconds until `copies` of a task, submitted together, are all finished."""
    begin = time.perf_counter()
    for copy in range(copies):
        backend.submit(f"{name}-{copy}", probe.task, probe.inputs)
    for _ in range(copies):
        _finished(backend, probe.task)
    return time.perf_counter() - begin


def compute(backend: Backend, attempt: str, task: Task, inputs: Mapping[str, str]) -> str:
    """The result digest of one task, computed by a backend that has nothing else to do."""
    backend.submit(attempt, task, inputs)
    return _finished(backend, task)


def _finished(backend: Backend, task: Task) -> str:
    """The result digest of the next attempt that finishes."""
    for event in backend.events():
        if event.kind == "finished":
            return event.result
        if event.kind in ("failed", "lost"):
            raise TaskError(f"{task.label}, to be timed, {event.kind}: {event.reason}")
    raise TaskError(f"{task.label}, to be timed, was given up by the backend. Look at `manybody nodes`.")
