"""Stretches of dynamics, as the methods of several engines ask for them, and chains of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.protocols import MethodSpec
from manybody.core.spec import Spec, refuse_unless_multiple
from manybody.core.task import Output, Task

Thermostat = Literal["bussi", "langevin", "none"]


class Sampled(Spec):
    """One stretch of dynamics that is sampled: what a node needs to know to compute it. Times in the method's unit."""

    time_step: float
    time: float
    sample_every: float
    frame_every: float

    @property
    def steps(self) -> int:
        """Time steps of the stretch."""
        return max(1, round(self.time / self.time_step))

    @property
    def stride(self) -> int:
        """Time steps between samples."""
        return max(1, round(self.sample_every / self.time_step))

    @property
    def samples(self) -> int:
        """Samples of the stretch."""
        return max(1, round(self.time / self.sample_every))

    @property
    def frame_stride(self) -> int:
        """Samples between stored configurations."""
        return max(1, round(self.frame_every / self.sample_every))

    @classmethod
    def of(cls, method: MethodSpec, **changes: Any) -> Self:
        """A stretch with a method's settings, changed where said; `time` always is."""
        fields = {field: getattr(method, field) for field in cls.model_fields if field != "time"}
        return cls.model_validate(fields | changes)


class Leg(Sampled):
    """A stretch of dynamics with a thermostat."""

    thermostat: Thermostat
    thermostat_time: float


def refuse_unless_times_nest(method: MethodSpec) -> None:
    """Refuse a method whose samples are no whole steps, frames no whole samples, or segments no whole frames."""
    for field, inner in (("sample_every", "time_step"), ("frame_every", "sample_every"), ("segment", "frame_every")):
        refuse_unless_multiple(method, field, inner)


def left_by(
    task: Task, inputs: Mapping[str, Output], shapes: Mapping[str, tuple[int, ...]], name: str = "state"
) -> dict[str, np.ndarray]:
    """The arrays of these names that another task left as the input `name`, copied, in double precision.

    Raises `TaskError` where the input or an array is missing, has another shape, or holds what is no finite number.
    """
    if name not in inputs:
        raise TaskError(f"{task.label}: expected an input `{name}`; got {', '.join(inputs) or 'none'}. Add it to the task.")
    found = {}
    for array, shape in shapes.items():
        found[array] = np.array(inputs[name].arrays.get(array, ()), dtype=np.float64)
        if found[array].shape != shape or not np.isfinite(found[array]).all():
            raise TaskError(
                f"{task.label}: expected finite `{array}` of shape {list(shape)}; got shape {list(found[array].shape)}. "
                "Compute the task it comes from again."
            )
    return found


def segments(duration: float, segment: float) -> int:
    """How many segments a duration takes; the last is a whole one."""
    return math.ceil(duration / segment - 1e-9)


def chain(start: Task, count: int, after: Callable[[str], Task]) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """`start`, then `count` tasks, each `after` the digest of the one before: all of them, and those that are measured."""
    tasks = [start]
    for _ in range(count):
        tasks.append(after(tasks[-1].digest))
    return tuple(tasks), tuple(tasks[1:])
