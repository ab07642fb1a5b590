"""The tasks of coupling a solute: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.random import Key
from manybody.core.task import Output, Progress, Task
from manybody.engines.solvation.engine import SolvationEngine, Trace
from manybody.engines.solvation.spec import LennardJonesSolvation, Melt, Window
from manybody.engines.solvation.state import SolvationState
from manybody.numerics.statistics import rms_about_trend

GENTLE_STEPS = 200  # a large solute on a lattice starts with contacts too hard for a full time step


def melt(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From a lattice to the liquid, the solute fully coupled: melted hot, then at the temperature."""
    system, leg = LennardJonesSolvation.model_validate(task.system), Melt.model_validate(task.parameters)

    def engine(share: float, temperature: float | None) -> SolvationEngine:
        return SolvationEngine(system, 1.0, leg.alpha, share * leg.time_step, temperature, context.threads)

    hot, gentle, calm = engine(1.0, leg.melting_temperature), engine(0.1, leg.melting_temperature), engine(1.0, None)
    state = gentle.step(hot.init(task.key), GENTLE_STEPS)
    state = hot.step(state, max(1, round(leg.melting / leg.time_step)))
    state = calm.step(calm.renewed(state), max(1, round(leg.time / leg.time_step)))
    return Output(_last(state, system), {"steps": state.step})


def settle(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From the melt to equilibrium at a window's coupling."""
    system, leg = _parse(task)
    engine, state = _engine(system, leg, context), _continued(task, system, inputs)
    left, stretch = round(leg.settling / leg.time_step), leg.stride * leg.frame_stride
    while left > 0:
        state, left = engine.step(engine.renewed(state), min(left, stretch)), left - stretch
    return Output(_last(state, system), {"steps": state.step})


def sample(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment of a window, from where the task before it ended."""
    system, leg = _parse(task)
    recorder = Recorder(_engine(system, leg, context), leg, context)
    return recorder.output(recorder.begin(_continued(task, system, inputs)))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well energy and heat balance."""
    return sample(task, inputs, context)


def _parse(task: Task) -> tuple[LennardJonesSolvation, Window]:
    return LennardJonesSolvation.model_validate(task.system), Window.model_validate(task.parameters)


def _engine(system: LennardJonesSolvation, leg: Window, context: Context) -> SolvationEngine:
    return SolvationEngine(system, leg.coupling, leg.alpha, leg.time_step, None, context.threads)


def _continued(task: Task, system: LennardJonesSolvation, inputs: Mapping[str, Output]) -> SolvationState:
    """The last state of the task before, with this task's key."""
    vectors = (1 + system.atoms, 3)
    positions, velocities = left_by(task, inputs, {"positions": vectors, "velocities": vectors}).values()
    return SolvationState(positions, velocities, task.key)


def _last(state: SolvationState, system: LennardJonesSolvation) -> dict[str, np.ndarray]:
    box = np.full(3, system.box)
    return {"positions": state.positions, "velocities": state.velocities, "box": box}


class Recorder:
    """Runs a segment frame by frame, keeps what it recorded, and reports progress.

    Velocities are drawn anew at the start of each frame, from the task's key and the step. A checkpoint is offered there.
    """

    def __init__(self, engine: SolvationEngine, leg: Window, context: Context) -> None:
        self.engine, self.leg, self.context = engine, leg, context
        self.traces: list[Trace] = []
        self.frames: list[np.ndarray] = []

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def begin(self, start: SolvationState) -> SolvationState:
        """Where to begin: at `start`, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None:
            return start
        self.traces = [Trace(**{field.name: left.arrays[f"trace_{field.name}"] for field in fields(Trace)})]
        self.frames = list(left.arrays["frames"])
        places, velocities = (np.array(left.arrays[name]) for name in ("positions", "velocities"))
        key = Key(int(left.document["key"], 16))
        return SolvationState(places, velocities, key, int(left.document["step"]), float(left.document["heat"]))

    def output(self, state: SolvationState) -> Output:
        """Run the segment to its end; the task's output."""
        leg, engine = self.leg, self.engine
        while (done := self.samples) < leg.samples:
            count = min(leg.frame_stride, leg.samples - done)
            state = engine.renewed(state)
            state, trace = engine.record(state, leg.stride, count, leg.couplings, leg.insertions)
            self.traces.append(trace)
            if count == leg.frame_stride:
                self.frames.append(state.positions.astype(np.float32))
            simulated = self.samples * leg.stride * leg.time_step
            self.context.progress(Progress(min(1.0, self.samples / leg.samples), simulated, "tau"))
            self.context.keep(self._checkpoint(state))
        return self._output(state)

    def _output(self, state: SolvationState) -> Output:
        leg, engine, trace = self.leg, self.engine, Trace.joined(self.traces)
        interval = leg.stride * leg.time_step
        time = interval * np.arange(1, self.samples + 1)
        unit = engine.freedom * engine.temperature
        balance = (trace.potential_energy + trace.kinetic_energy - trace.heat) / unit
        arrays = {
            "time": time,
            "balance": balance,
            "kinetic_temperature": 2 * trace.kinetic_energy / unit,
            "momentum": np.linalg.norm(trace.momentum, axis=1) / math.sqrt(engine.temperature),
            "potential_energy": trace.potential_energy,
            "slopes": trace.slopes,
            "energies": trace.energies,
            "neighbours": trace.neighbours,
            "insertions": trace.insertions,
            "frame_time": interval * leg.frame_stride * np.arange(1, len(self.frames) + 1),
            "frames": self._stacked(),
        }
        document = {
            "coupling": leg.coupling,
            "steps": leg.stride * self.samples,
            "time_step": leg.time_step,
            "degrees_of_freedom": engine.freedom,
            "energy_fluctuation": rms_about_trend(time, balance),
        }
        return Output(arrays | _last(state, engine.system), document)

    def _checkpoint(self, state: SolvationState) -> Output:
        recorded = {f"trace_{name}": values for name, values in vars(Trace.joined(self.traces)).items()}
        document = {"key": f"{state.key.value:032x}", "step": state.step, "heat": state.heat}
        return Output(recorded | _last(state, self.engine.system) | {"frames": self._stacked()}, document)

    def _stacked(self) -> np.ndarray:
        return np.array(self.frames, dtype=np.float32).reshape(-1, 1 + self.engine.system.atoms, 3)
