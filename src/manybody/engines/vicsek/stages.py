"""The tasks of a flock's dynamics: what a node runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.vicsek.engine import VicsekEngine, direction_order, order
from manybody.engines.vicsek.spec import FlockStretch, VicsekFlock
from manybody.engines.vicsek.state import FlockState

ROWS = ("order", "direction_order", "heading_correlation", "mean_square_displacement")


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From a random start to where measuring begins."""
    engine, stretch = _parse(task, context)
    return _recorded(engine, engine.init(task.key), stretch, context)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment, from where the task before it ended."""
    engine, stretch = _parse(task, context)
    return _recorded(engine, _continued(task, engine.system, inputs), stretch, context)


def _parse(task: Task, context: Context) -> tuple[VicsekEngine, FlockStretch]:
    system = VicsekFlock.model_validate(task.system)
    return VicsekEngine(system, context.threads), FlockStretch.model_validate(task.parameters)


def _continued(task: Task, system: VicsekFlock, inputs: Mapping[str, Output]) -> FlockState:
    """The last state of the task before, with this task's key."""
    shapes = {"unwrapped": (system.particles, 2), "angles": (system.particles,)}
    positions, angles = left_by(task, inputs, shapes).values()
    return FlockState(positions, angles, system.edge, task.key)


def _recorded(engine: VicsekEngine, state: FlockState, stretch: FlockStretch, context: Context) -> Output:
    """Run a stretch; one row a sample.

    The order parameter; that of the directions which the last step turned at random; and, over the time between samples and as
    means over particles, cos of the change of heading and the squared displacement.
    """
    rows, frames = [], []
    for sample in range(1, stretch.samples + 1):
        before = state
        last = engine.step(state, stretch.stride - 1)
        state = engine.step(last, 1)
        rows.append(
            (
                order(state.angles),
                direction_order(engine.surroundings(last)),
                float(np.cos(state.angles - before.angles).mean()),
                float(((state.positions - before.positions) ** 2).sum(axis=1).mean()),
            )
        )
        if sample % stretch.frame_stride == 0:
            frames.append(_in_space(state).astype(np.float32))
        context.progress(Progress(sample / stretch.samples, sample * stretch.sample_every, "steps"))
    return _output(stretch, state, np.array(rows), frames)


def _in_space(state: FlockState) -> np.ndarray:
    """Wrapped positions [particles, 3] in a flat box: what viewers of particles open."""
    return np.pad(state.positions % state.edge, ((0, 0), (0, 1)))


def _output(stretch: FlockStretch, state: FlockState, rows: np.ndarray, frames: list[np.ndarray]) -> Output:
    arrays = dict(zip(ROWS, np.ascontiguousarray(rows.T), strict=True)) | {
        "time": float(stretch.stride) * np.arange(1, len(rows) + 1),
        "frame_time": float(stretch.stride * stretch.frame_stride) * np.arange(1, len(frames) + 1),
        "frames": np.array(frames, dtype=np.float32).reshape(-1, len(state.positions), 3),
        "positions": _in_space(state),
        "unwrapped": state.positions,
        "angles": state.angles,
        "box": np.array([state.edge, state.edge, 1.0]),
    }
    return Output(arrays, {"steps": stretch.stride * len(rows)})
