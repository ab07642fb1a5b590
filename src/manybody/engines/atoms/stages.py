"""The tasks of the dynamics of atoms: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np

from manybody.core.dynamics import Leg, left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.atoms.engine import AtomsEngine, Trace
from manybody.engines.atoms.spec import FEMTOSECOND, AtomsDynamics, system_of
from manybody.engines.atoms.state import AtomsState
from manybody.engines.atoms.statics import static_response
from manybody.numerics.statistics import linear_drift, rms_about_trend

CALL_STEPS = 50  # steps between looks at the clock, about; a matter of the leg alone, so that results repeat bit for bit


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From the start to equilibrium at the temperature asked for; then brought to rest as a whole."""
    engine, leg = _engine(task)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(engine.init(task.key)), at_rest=True)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment of equilibrium dynamics, from where the task before it ended."""
    engine, leg = _engine(task)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(_continued(task, engine, inputs)))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well the integrator conserves."""
    return produce(task, inputs, context)


def _engine(task: Task) -> tuple[AtomsEngine, Leg]:
    leg = Leg.model_validate(task.parameters)
    return AtomsEngine(system_of(task.system), leg.time_step, leg.thermostat, leg.thermostat_time), leg


def _continued(task: Task, engine: AtomsEngine, inputs: Mapping[str, Output]) -> AtomsState:
    """The last state of the task before, with this task's key."""
    vectors = (len(engine.numbers), 3)
    x, v = left_by(task, inputs, {"positions": vectors, "velocities": vectors}).values()
    return AtomsState(x, v, engine.cell.copy(), np.arange(len(x)), task.key)


class Recorder:
    """Runs a leg stretch by stretch, keeps what it recorded, and reports progress.

    It offers a checkpoint between calls of the engine only: a call begins with a model that has forgotten, so that the state
    there determines every later bit. What was recorded so far is part of the checkpoint.
    """

    def __init__(self, engine: AtomsEngine, leg: Leg, context: Context) -> None:
        self.engine, self.leg, self.context = engine, leg, context
        self.stride = max(1, round(leg.sample_every / leg.time_step))
        self.frame_stride = max(1, round(leg.frame_every / leg.sample_every))
        self.wanted = max(1, round(leg.steps / self.stride))
        self.traces: list[Trace] = []
        self.frames: list[np.ndarray] = []
        method = AtomsDynamics(
            thermostat=leg.thermostat, thermostat_time=leg.thermostat_time,
            time_step=leg.time_step, sample_every=leg.sample_every, frame_every=leg.frame_every, segment=leg.frame_every,
        )  # fmt: skip
        self.tolerance = method.conserves(engine.system)[0].tolerance

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def begin(self, start: AtomsState) -> AtomsState:
        """Where to begin: at `start`, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None:
            return start
        self.traces = [Trace(**{field.name: left.arrays[f"trace_{field.name}"] for field in fields(Trace)})]
        self.frames = list(left.arrays["frames"])
        x, v = (np.array(left.arrays[name]) for name in ("positions", "velocities"))
        return replace(start, positions=x, velocities=v, step=int(left.document["step"]), heat=float(left.document["heat"]))

    def run(self, state: AtomsState) -> AtomsState:
        """Advance to the end of the leg; frames at whole multiples of their interval."""
        block = max(1, round(CALL_STEPS / self.stride))
        while (done := self.samples) < self.wanted:
            count = min(block, self.frame_stride - done % self.frame_stride, self.wanted - done)
            state, trace = self.engine.record(state, self.stride, count)
            self.traces.append(trace)
            if self.samples % self.frame_stride == 0:
                self.frames.append(state.positions.astype(np.float32))
            self._report()
            self.context.keep(self._checkpoint(state))
        return state

    def output(self, state: AtomsState, at_rest: bool = False) -> Output:
        """Run the leg to its end; the task's output."""
        state = self.run(state)
        if at_rest:
            state = self.engine.at_rest(state)
        engine, trace, interval = self.engine, self._joined(), self.stride * self.leg.time_step
        time, energy = interval * np.arange(1.0, self.samples + 1), self._effective_energy(trace)
        static = static_response(engine.provider, engine.start, engine.numbers, engine.cell, engine.pbc)
        arrays = {
            "time": time,
            "potential_energy": trace.potential_energy,
            "virial": trace.virial,
            "kinetic_energy": trace.kinetic_energy,
            "effective_energy": energy,
            "momentum": np.linalg.norm(trace.momentum, axis=1) / math.sqrt(engine.system.temperature),
            "frame_time": interval * self.frame_stride * np.arange(1, len(self.frames) + 1),
            "frames": self._stacked(),
            "positions": state.positions,
            "velocities": state.velocities,
            "cell": state.cell,
            "pbc": engine.pbc,
            "numbers": engine.numbers,
        }
        document = {
            "steps": self.stride * self.samples,
            "time_step": self.leg.time_step,
            "degrees_of_freedom": engine.freedom,
            "energy_fluctuation": rms_about_trend(time, energy),
            "temperature": 2 * float(trace.kinetic_energy.mean()) / engine.freedom,
        }
        return Output(arrays, document | static)

    def _checkpoint(self, state: AtomsState) -> Output:
        recorded = {f"trace_{name}": values for name, values in vars(self._joined()).items()}
        last = {"positions": state.positions, "velocities": state.velocities}
        return Output(recorded | last | {"frames": self._stacked()}, {"step": state.step, "heat": state.heat})

    def _stacked(self) -> np.ndarray:
        return np.array(self.frames, dtype=np.float32).reshape(-1, len(self.engine.numbers), 3)

    def _joined(self) -> Trace:
        return Trace(
            **{field.name: np.concatenate([getattr(trace, field.name) for trace in self.traces]) for field in fields(Trace)}
        )

    def _effective_energy(self, trace: Trace) -> np.ndarray:
        energy: np.ndarray = trace.potential_energy + trace.kinetic_energy - trace.heat
        return energy / (self.engine.freedom * self.engine.system.temperature)

    def _report(self) -> None:
        interval, energy = self.stride * self.leg.time_step, self._effective_energy(self._joined())
        # before a hundred samples a slope would be the noise of a few
        drift = linear_drift(interval * np.arange(len(energy)), energy) if len(energy) >= 100 else None
        simulated = interval * self.samples / (1000 * FEMTOSECOND)
        self.context.progress(Progress(self.samples / self.wanted, simulated, "ps", drift, self.tolerance))
