"""The tasks of Brownian dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.active.engine import ActiveEngine
from manybody.engines.active.spec import ActiveBrownianParticles, Stretch
from manybody.engines.active.state import ActiveState
from manybody.numerics.brownian import gaussian_noise


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From the start to where measuring begins."""
    system, stretch = _parse(task)
    engine = ActiveEngine(system, stretch.time_step, stretch.start)
    return _recorded(engine, engine.init(task.key), np.zeros((system.particles, 2)), stretch, context)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment, from where the task before it ended."""
    system, stretch = _parse(task)
    engine = ActiveEngine(system, stretch.time_step, stretch.start)
    state, displacement = _continued(task, system, inputs)
    return _recorded(engine, state, displacement, stretch, context)


def converge(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Two paths on the same noise, with the time step and with half of it: how far they part, root mean square."""
    system, stretch = _parse(task)
    state, _ = _continued(task, system, inputs)
    steps = stretch.stride * stretch.samples
    fine = gaussian_noise(task.key, 0, 2 * steps, system.particles)
    coarse = (fine[0::2] + fine[1::2]) / math.sqrt(2)
    ends = [
        ActiveEngine(system, stretch.time_step / halving).moved(state, noise).positions
        for halving, noise in ((1, coarse), (2, fine))
    ]
    apart = math.sqrt(float(((ends[0] - ends[1]) ** 2).sum(axis=1).mean()))
    return Output({}, {"path_difference": apart, "time_step": stretch.time_step, "steps": steps})


def _parse(task: Task) -> tuple[ActiveBrownianParticles, Stretch]:
    return ActiveBrownianParticles.model_validate(task.system), Stretch.model_validate(task.parameters)


def _continued(task: Task, system: ActiveBrownianParticles, inputs: Mapping[str, Output]) -> tuple[ActiveState, np.ndarray]:
    """The last state of the task before, with this task's key, and the last displacement."""
    shapes = {"unwrapped": (system.particles, 2), "displacement": (system.particles, 2), "angles": (system.particles,)}
    positions, displacement, angles = left_by(task, inputs, shapes).values()
    return ActiveState(positions, angles, system.edge, np.zeros(2), task.key), displacement


def _recorded(engine: ActiveEngine, state: ActiveState, displacement: np.ndarray, stretch: Stretch, context: Context) -> Output:
    """Run a stretch; one row a sample.

    mean_square_displacement, displacement_product, orientation_correlation: over the time between samples, means over
    particles; the product is that of this displacement and the one before. The rest is `engine.Look` and the centre.
    """
    rows, frames = [], []
    origin = state.positions.mean(axis=0) - state.driven
    for sample in range(1, stretch.samples + 1):
        before, moved = state, displacement
        state = engine.step(state, stretch.stride)
        displacement = state.positions - before.positions
        look = engine.look(state)
        rows.append(
            (
                float((displacement**2).sum(axis=1).mean()),
                float((displacement * moved).sum(axis=1).mean()),
                float(np.cos(state.angles - before.angles).mean()),
                look.energy,
                look.virial,
                look.advance,
                float(np.hypot(*(state.positions.mean(axis=0) - state.driven - origin))),
            )
        )
        if sample % stretch.frame_stride == 0:
            frames.append(_in_space(state).astype(np.float32))
        context.progress(Progress(sample / stretch.samples, sample * stretch.sample_every, "d^2/D"))
    return _output(stretch, state, displacement, np.array(rows), frames)


def _in_space(state: ActiveState) -> np.ndarray:
    """Wrapped positions [particles, 3] in a box one diameter high: what viewers of particles open."""
    return np.pad(state.positions % state.edge, ((0, 0), (0, 1)))


def _output(stretch: Stretch, state: ActiveState, displacement: np.ndarray, rows: np.ndarray, frames: list[np.ndarray]) -> Output:
    interval = stretch.stride * stretch.time_step
    names = (
        "mean_square_displacement", "displacement_product", "orientation_correlation", "energy", "virial", "advance", "centre",
    )  # fmt: skip
    arrays = dict(zip(names, np.ascontiguousarray(rows.T), strict=True)) | {
        "time": interval * np.arange(1, len(rows) + 1),
        "frame_time": interval * stretch.frame_stride * np.arange(1, len(frames) + 1),
        "frames": np.array(frames, dtype=np.float32).reshape(-1, len(state.positions), 3),
        "positions": _in_space(state),
        "unwrapped": state.positions,
        "angles": state.angles,
        "displacement": displacement,
        "box": np.array([state.edge, state.edge, 1.0]),
    }
    return Output(arrays, {"steps": stretch.stride * len(rows), "time_step": stretch.time_step})
