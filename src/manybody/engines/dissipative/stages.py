"""The tasks of dissipative dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.random import Key
from manybody.core.task import Output, Progress, Task
from manybody.engines.dissipative.engine import DissipativeEngine
from manybody.engines.dissipative.spec import DissipativeLeg, DissipativeParticles
from manybody.engines.dissipative.state import DissipativeState
from manybody.numerics.dissipative import COLUMNS


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From random positions to where measuring begins."""
    engine, leg = _parse(task)
    state = engine.init(task.key)
    return Recorder(engine, leg, context).output(state, np.zeros_like(state.positions))


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment, from where the task before it ended."""
    engine, leg = _parse(task)
    return Recorder(engine, leg, context).output(*_continued(task, engine.system, inputs))


def _parse(task: Task) -> tuple[DissipativeEngine, DissipativeLeg]:
    leg = DissipativeLeg.model_validate(task.parameters)
    return DissipativeEngine(DissipativeParticles.model_validate(task.system), leg.time_step), leg


def _continued(task: Task, system: DissipativeParticles, inputs: Mapping[str, Output]) -> tuple[DissipativeState, np.ndarray]:
    """The last state of the task before, with this task's key, and the last displacement."""
    vectors = (system.particles, 3)
    shapes = {"unwrapped": vectors, "velocities": vectors, "displacement": vectors, "species": (system.particles,)}
    x, v, displacement, species = left_by(task, inputs, shapes).values()
    return DissipativeState(x, v, species.astype(np.int64), np.array(system.box), task.key), displacement


class Recorder:
    """Runs a leg frame by frame, keeps what it recorded, and reports progress; what was recorded is part of a checkpoint.

    Of each frame: squared_displacement, over the time between frames, a mean over particles; displacement_product, that of this
    displacement and the one before; end_to_end, the mean square distance of the ends of a chain.
    """

    def __init__(self, engine: DissipativeEngine, leg: DissipativeLeg, context: Context) -> None:
        self.engine, self.leg, self.context = engine, leg, context
        self.rows = np.empty((0, len(COLUMNS)))
        self.moves = np.empty((0, 3))
        self.frames = np.empty((0, engine.system.particles, 3), dtype=np.float32)

    def output(self, state: DissipativeState, displacement: np.ndarray) -> Output:
        """Run the leg from `state`, or from where an earlier attempt at the same task left a checkpoint; the task's output."""
        state, displacement = self._resumed(state, displacement)
        while (done := len(self.rows)) < self.leg.samples:
            before = state.positions
            state, rows = self.engine.record(state, self.leg.stride, min(self.leg.frame_stride, self.leg.samples - done))
            self.rows = np.concatenate([self.rows, rows])
            if len(rows) == self.leg.frame_stride:
                displacement = self._frame(state, state.positions - before, displacement)
            fraction, simulated = len(self.rows) / self.leg.samples, len(self.rows) * self.leg.sample_every
            self.context.progress(Progress(fraction, simulated, "tau"))
            self.context.keep(self._checkpoint(state, displacement))
        return self._output(state, displacement)

    def _frame(self, state: DissipativeState, moved: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Store a configuration, and how far particles moved since the last; gives that back."""
        beads = self.engine.system.beads
        ends = state.positions[beads - 1 :: beads] - state.positions[::beads]
        row = [
            float((vectors * others).sum(axis=1).mean()) for vectors, others in ((moved, moved), (moved, before), (ends, ends))
        ]
        self.moves = np.concatenate([self.moves, [row]])
        self.frames = np.concatenate([self.frames, [(state.positions % state.box).astype(np.float32)]])
        return moved

    def _resumed(self, state: DissipativeState, displacement: np.ndarray) -> tuple[DissipativeState, np.ndarray]:
        left = self.context.resume()
        if left is None:
            return state, displacement
        arrays, document = left.arrays, left.document
        self.rows, self.moves, self.frames = (np.array(arrays[name]) for name in ("rows", "moves", "frames"))
        x, v, species = (np.array(arrays[name]) for name in ("unwrapped", "velocities", "species"))
        key, step, heat = Key(int(document["key"], 16)), int(document["step"]), float(document["heat"])
        return DissipativeState(x, v, species, state.box, key, step, heat), np.array(arrays["displacement"])

    def _checkpoint(self, state: DissipativeState, displacement: np.ndarray) -> Output:
        recorded: dict[str, np.ndarray] = {"rows": self.rows, "moves": self.moves, "frames": self.frames}
        document = {"key": f"{state.key.value:032x}", "step": state.step, "heat": state.heat}
        return Output(recorded | _last(state, displacement), document)

    def _output(self, state: DissipativeState, displacement: np.ndarray) -> Output:
        leg, system = self.leg, self.engine.system
        interval = leg.stride * leg.time_step
        columns = dict(zip(COLUMNS, np.ascontiguousarray(self.rows.T), strict=True))
        momentum = self.rows[:, [COLUMNS.index(f"momentum_{axis}") for axis in "xyz"]]
        kept = (columns["energy"] + columns["kinetic_energy"] - columns["heat"]) / (1.5 * system.particles * system.temperature)
        time = interval * np.arange(1, len(self.rows) + 1)
        moves = dict(
            zip(("squared_displacement", "displacement_product", "end_to_end"), np.ascontiguousarray(self.moves.T), strict=True)
        )
        arrays = {
            **columns,
            **moves,
            "time": time,
            "momentum": np.linalg.norm(momentum, axis=1) / math.sqrt(system.temperature),
            "frame_time": interval * leg.frame_stride * np.arange(1, len(self.frames) + 1),
            "frames": self.frames,
            "positions": state.positions % state.box,
            "box": state.box,
        }
        steps = leg.stride * len(self.rows)
        document = {"steps": steps, "time_step": leg.time_step, "energy_fluctuation": _scatter(np.diff(kept))}
        return Output(arrays | _last(state, displacement), document)


def _last(state: DissipativeState, displacement: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "unwrapped": state.positions,
        "velocities": state.velocities,
        "species": state.species,
        "displacement": displacement,
    }


def _scatter(increments: np.ndarray) -> float:
    """Root mean square deviation of increments from their mean; 0 for fewer than two."""
    return float(increments.std()) if len(increments) > 1 else 0.0
