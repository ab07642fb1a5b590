"""The tasks of ion dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.electrolyte.engine import IonEngine, alternating_charges
from manybody.engines.electrolyte.spec import DrivenElectrolyte, Stretch
from manybody.engines.electrolyte.state import IonState
from manybody.numerics.brownian import gaussian_noise


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From ions at random to where measuring begins."""
    engine, stretch = _parse(task)
    return _recorded(engine, engine.init(task.key), stretch, context)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment, from where the task before it ended."""
    engine, stretch = _parse(task)
    return _recorded(engine, _continued(task, engine.system, inputs), stretch, context)


def converge(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Two paths on the same noise, with the time step and with half of it: how far they part, root mean square."""
    engine, stretch = _parse(task)
    state = _continued(task, engine.system, inputs)
    steps = stretch.stride * stretch.samples
    fine = gaussian_noise(task.key, 0, 2 * steps, engine.system.ions)
    coarse = (fine[0::2] + fine[1::2]) / math.sqrt(2)
    ends = [
        IonEngine(engine.system, stretch.time_step / halving).moved(state, noise).state.positions
        for halving, noise in ((1, coarse), (2, fine))
    ]
    apart = math.sqrt(float(((ends[0] - ends[1]) ** 2).sum(axis=1).mean()))
    return Output({}, {"path_difference": apart, "time_step": stretch.time_step, "steps": steps})


def _parse(task: Task) -> tuple[IonEngine, Stretch]:
    system, stretch = DrivenElectrolyte.model_validate(task.system), Stretch.model_validate(task.parameters)
    return IonEngine(system, stretch.time_step, stretch.modes), stretch


def _continued(task: Task, system: DrivenElectrolyte, inputs: Mapping[str, Output]) -> IonState:
    """The last state of the task before, with this task's key."""
    positions = left_by(task, inputs, {"unwrapped": (system.ions, 3)})["unwrapped"]
    return IonState(positions, alternating_charges(system.ions), system.edge, np.zeros(3), task.key)


def _recorded(engine: IonEngine, state: IonState, stretch: Stretch, context: Context) -> Output:
    """Run a stretch; one row a sample.

    density, charge, cross: [samples, bins], structure factors of the long modes at the end of each interval. relaxation:
    [samples], the mean over the interval of - z F_x. centre: [samples], how far the mean position strayed from the noise.
    """
    relaxation, centre, frames = [], [], []
    structures = []
    origin = state.positions.mean(axis=0) - state.driven
    for sample in range(1, stretch.samples + 1):
        followed = engine.follow(state, stretch.stride)
        state = followed.state
        relaxation.append(followed.relaxation)
        structures.append(engine.structure(state))
        centre.append(float(np.linalg.norm(state.positions.mean(axis=0) - state.driven - origin)))
        if sample % stretch.frame_stride == 0:
            frames.append((state.positions % state.edge).astype(np.float32))
        context.progress(Progress(sample / stretch.samples, sample * stretch.sample_every, "Debye times"))
    interval = stretch.stride * stretch.time_step
    arrays = {name: np.array([getattr(found, name) for found in structures]) for name in ("density", "charge", "cross")} | {
        "relaxation": np.array(relaxation),
        "centre": np.array(centre),
        "time": interval * np.arange(1, len(relaxation) + 1),
        "frame_time": interval * stretch.frame_stride * np.arange(1, len(frames) + 1),
        "frames": np.array(frames, dtype=np.float32).reshape(-1, engine.system.ions, 3),
        "positions": state.positions % state.edge,
        "unwrapped": state.positions,
        "box": np.full(3, state.edge),
    }
    return Output(arrays, {"steps": stretch.stride * len(relaxation), "time_step": stretch.time_step})
