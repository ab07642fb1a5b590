"""The tasks of dynamics under coloured noise: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.active.coloured.engine import ColouredEngine
from manybody.engines.active.coloured.spec import ActiveOrnsteinUhlenbeckParticles, ColouredStretch
from manybody.engines.active.coloured.state import ColouredState

ROWS = (
    "mean_square_displacement", "displacement_product", "velocity_correlation", "energy", "trap_virial", "entropy_production",
    "centre",
)  # fmt: skip


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From the start to where measuring begins."""
    engine, stretch = _parse(task)
    return _recorded(engine, engine.init(task.key), np.zeros((engine.system.particles, 2)), stretch, context)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment, from where the task before it ended."""
    engine, stretch = _parse(task)
    state, displacement = _continued(task, engine.system, inputs)
    return _recorded(engine, state, displacement, stretch, context)


def converge(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Two paths on the same noise, with the time step and with half of it: how far they part, root mean square."""
    coarse, stretch = _parse(task)
    fine = ColouredEngine(coarse.system, stretch.time_step / 2, stretch.start)
    state, _ = _continued(task, coarse.system, inputs)
    steps = stretch.stride * stretch.samples
    noise = fine.noise(task.key, 0, 2 * steps)
    apart = coarse.moved(state, coarse.coarser(noise, fine)).positions - fine.moved(state, noise).positions
    difference = math.sqrt(float((apart**2).sum(axis=1).mean()))
    return Output({}, {"path_difference": difference, "time_step": stretch.time_step, "steps": steps})


def _parse(task: Task) -> tuple[ColouredEngine, ColouredStretch]:
    stretch = ColouredStretch.model_validate(task.parameters)
    system = ActiveOrnsteinUhlenbeckParticles.model_validate(task.system)
    return ColouredEngine(system, stretch.time_step, stretch.start), stretch


def _continued(
    task: Task, system: ActiveOrnsteinUhlenbeckParticles, inputs: Mapping[str, Output]
) -> tuple[ColouredState, np.ndarray]:
    """The last state of the task before, with this task's key, and the last displacement."""
    shapes = dict.fromkeys(("unwrapped", "propulsions", "displacement"), (system.particles, 2))
    positions, propulsions, displacement = left_by(task, inputs, shapes).values()
    return ColouredState(positions, propulsions, system.edge, np.zeros(2), task.key), displacement


def _recorded(
    engine: ColouredEngine, state: ColouredState, displacement: np.ndarray, stretch: ColouredStretch, context: Context
) -> Output:
    """Run a stretch; one row a sample.

    The first three are means over particles, over the time between samples: of |dx|^2, of this dx and the one before, of this
    velocity and the one before. Then `engine.ColouredLook`, and how far the centre is from where propulsion took it.
    """
    rows, frames = [], []
    origin, before = state.positions.mean(axis=0) - state.driven, engine.look(state).velocities
    for sample in range(1, stretch.samples + 1):
        earlier, moved = state.positions, displacement
        state = engine.step(state, stretch.stride)
        displacement, look = state.positions - earlier, engine.look(state)
        rows.append(
            (
                float((displacement**2).sum(axis=1).mean()),
                float((displacement * moved).sum(axis=1).mean()),
                float((look.velocities * before).sum(axis=1).mean()),
                look.energy,
                look.trap_virial,
                look.entropy_production,
                float(np.hypot(*(state.positions.mean(axis=0) - state.driven - origin))),
            )
        )
        before = look.velocities
        if sample % stretch.frame_stride == 0:
            frames.append(_in_space(state).astype(np.float32))
        context.progress(Progress(sample / stretch.samples, sample * stretch.sample_every, "d^2/(mobility energy)"))
    return _output(stretch, state, displacement, np.array(rows), frames)


def _in_space(state: ColouredState) -> np.ndarray:
    """Wrapped positions [particles, 3] in a box one diameter high: what viewers of particles open."""
    return np.pad(state.positions % state.edge, ((0, 0), (0, 1)))


def _output(
    stretch: ColouredStretch, state: ColouredState, displacement: np.ndarray, rows: np.ndarray, frames: list[np.ndarray]
) -> Output:
    interval = stretch.stride * stretch.time_step
    arrays = dict(zip(ROWS, np.ascontiguousarray(rows.T), strict=True)) | {
        "time": interval * np.arange(1, len(rows) + 1),
        "frame_time": interval * stretch.frame_stride * np.arange(1, len(frames) + 1),
        "frames": np.array(frames, dtype=np.float32).reshape(-1, len(state.positions), 3),
        "positions": _in_space(state),
        "unwrapped": state.positions,
        "propulsions": state.propulsions,
        "displacement": displacement,
        "box": np.array([state.edge, state.edge, 1.0]),
    }
    return Output(arrays, {"steps": stretch.stride * len(rows), "time_step": stretch.time_step})
