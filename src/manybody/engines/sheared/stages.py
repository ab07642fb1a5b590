"""The tasks of sheared dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import numpy as np

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.random import Key
from manybody.core.task import Output, Progress, Task
from manybody.engines.sheared.engine import ShearedEngine, Trace
from manybody.engines.sheared.spec import LennardJonesMixture, ShearedLeg
from manybody.engines.sheared.state import MixtureState
from manybody.numerics.statistics import rms_about_trend

GENTLE_STEPS = 200  # a random mixture on a lattice starts with contacts too hard for a full time step


def settle(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From a lattice to steady flow: melted hot and at rest, then brought to the temperature and the shear rate at once."""
    system, leg = _parse(task)
    hot = ShearedEngine(system, leg.time_step, 0.0, "isokinetic", leg.melting_temperature, context.threads)
    gentle = ShearedEngine(system, 0.1 * leg.time_step, 0.0, "isokinetic", leg.melting_temperature, context.threads)
    engine = _engine(system, leg, context)
    recorder = Recorder(engine, leg, context)

    def start() -> MixtureState:
        melted = hot.step(gentle.step(hot.init(task.key), GENTLE_STEPS), max(1, round(leg.melting / leg.time_step)))
        return replace(engine.tempered(melted), step=0)

    return recorder.output(recorder.begin(start))


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment, from where the task before it ended."""
    system, leg = _parse(task)
    engine = _engine(system, leg, context)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(lambda: _continued(task, system, inputs)))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well energy, work and heat balance."""
    return produce(task, inputs, context)


def _parse(task: Task) -> tuple[LennardJonesMixture, ShearedLeg]:
    return LennardJonesMixture.model_validate(task.system), ShearedLeg.model_validate(task.parameters)


def _engine(system: LennardJonesMixture, leg: ShearedLeg, context: Context) -> ShearedEngine:
    return ShearedEngine(system, leg.time_step, leg.shear_rate, leg.thermostat, None, context.threads)


def _continued(task: Task, system: LennardJonesMixture, inputs: Mapping[str, Output]) -> MixtureState:
    """The last state of the task before, with this task's key."""
    shapes = {"positions": (system.atoms, 3), "velocities": (system.atoms, 3), "cell": (3, 3), "species": (system.atoms,)}
    positions, velocities, cell, species = left_by(task, inputs, shapes).values()
    return MixtureState(positions, velocities, species.astype(np.int64), cell, task.key)


class Recorder:
    """Runs a leg frame by frame, keeps what it recorded, and reports progress.

    It offers a checkpoint between compiled calls only: a call begins with a fresh neighbour list, so that the state
    there determines every later bit. What was recorded so far is part of the checkpoint.
    """

    def __init__(self, engine: ShearedEngine, leg: ShearedLeg, context: Context) -> None:
        self.engine, self.leg, self.context = engine, leg, context
        self.traces: list[Trace] = []
        self.frames: list[np.ndarray] = []

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def begin(self, start: Callable[[], MixtureState]) -> MixtureState:
        """Where to begin: at `start()`, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None:
            return start()
        self.traces = [Trace(**{field.name: left.arrays[f"trace_{field.name}"] for field in fields(Trace)})]
        self.frames = list(left.arrays["frames"])
        x, v, species, cell = (np.array(left.arrays[name]) for name in ("positions", "velocities", "species", "cell"))
        document = left.document
        key, step = Key(int(document["key"], 16)), int(document["step"])
        return MixtureState(x, v, species, cell, key, step, float(document["heat"]), float(document["work"]))

    def output(self, state: MixtureState) -> Output:
        """Run the leg to its end; the task's output."""
        leg = self.leg
        while (done := self.samples) < leg.samples:
            count = min(leg.frame_stride - done % leg.frame_stride, leg.samples - done)
            state, trace = self.engine.record(state, leg.stride, count)
            self.traces.append(trace)
            if self.samples % leg.frame_stride == 0:
                self.frames.append(state.positions.astype(np.float32))
            self._report()
            self.context.keep(self._checkpoint(state))
        return self._output(state)

    def _output(self, state: MixtureState) -> Output:
        leg, trace, engine = self.leg, self._joined(), self.engine
        interval = leg.stride * leg.time_step
        time = interval * np.arange(1, self.samples + 1)
        balance = self._balance(trace)
        arrays = {
            "time": time,
            "potential_energy": trace.potential_energy,
            "pressure_tensor": (trace.virial + trace.kinetic) / engine.system.box**3,
            "heat": trace.heat,
            "work": trace.work,
            "balance": balance,
            "kinetic_temperature": 2 * trace.kinetic_energy / (engine.freedom * engine.temperature),
            "momentum": np.linalg.norm(trace.momentum, axis=1) / math.sqrt(engine.temperature),
            "frame_time": interval * leg.frame_stride * np.arange(1, len(self.frames) + 1),
            "frames": self._stacked(),
            "positions": state.positions,
            "velocities": state.velocities,
            "species": state.species,
            "cell": state.cell,
            "pbc": np.ones(3),
        }
        document = {
            "steps": leg.stride * self.samples,
            "time_step": leg.time_step,
            "strain": leg.shear_rate * interval * self.samples,
            "degrees_of_freedom": engine.freedom,
            "energy_fluctuation": rms_about_trend(time, balance),
        }
        return Output(arrays, document)

    def _checkpoint(self, state: MixtureState) -> Output:
        recorded = {f"trace_{name}": values for name, values in vars(self._joined()).items()}
        last = {name: getattr(state, name) for name in ("positions", "velocities", "species", "cell")}
        document = {"key": f"{state.key.value:032x}", "step": state.step, "heat": state.heat, "work": state.work}
        return Output(recorded | last | {"frames": self._stacked()}, document)

    def _stacked(self) -> np.ndarray:
        return np.array(self.frames, dtype=np.float32).reshape(-1, self.engine.system.atoms, 3)

    def _joined(self) -> Trace:
        return Trace(
            **{field.name: np.concatenate([getattr(trace, field.name) for trace in self.traces]) for field in fields(Trace)}
        )

    def _balance(self, trace: Trace) -> np.ndarray:
        """Energy less work and heat, in units of kT a degree of freedom."""
        energy = trace.potential_energy + trace.kinetic_energy - trace.work - trace.heat
        return np.asarray(energy / (self.engine.freedom * self.engine.temperature))

    def _report(self) -> None:
        simulated = self.samples * self.leg.stride * self.leg.time_step
        self.context.progress(Progress(min(1.0, self.samples / self.leg.samples), simulated, "tau"))
