"""The tasks of force-field dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.molecules.barostat import Barostat
from manybody.engines.molecules.boxes import MolecularBox
from manybody.engines.molecules.engine import MoleculeEngine, Trace
from manybody.engines.molecules.spec import ForceFieldDynamics, MolecularSystem, Molecule, MoleculeLeg, WaterBox
from manybody.engines.molecules.state import MoleculeState
from manybody.numerics.statistics import linear_drift, rms_about_trend

Array = NDArray[np.float64]

CALL_STEPS = 50  # steps between looks at the clock, about; a matter of the leg alone, so that results repeat bit for bit


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From the start to equilibrium at the temperature, and pressure, asked for; then brought to rest as a whole."""
    leg = MoleculeLeg.model_validate(task.parameters)
    engine = engine_of(task, leg, tunes=True)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(engine.init(task.key)), at_rest=True)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment of equilibrium dynamics, from where the task before it ended."""
    leg = MoleculeLeg.model_validate(task.parameters)
    engine = engine_of(task, leg)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(continued(task, engine, inputs)))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well the integrator conserves."""
    return produce(task, inputs, context)


def engine_of(task: Task, leg: MoleculeLeg, tunes: bool = False) -> MoleculeEngine:
    """The engine of a task's system and a leg; `tunes` lets a barostat find how far it can move."""
    kinds: tuple[type[MolecularSystem], ...] = (WaterBox, Molecule, MolecularBox)
    (kind,) = (kind for kind in kinds if kind.model_fields["name"].default == task.system["name"])
    system, barostat = kind.model_validate(task.system), None
    if leg.pressure is not None and leg.volume_every is not None:
        barostat = Barostat(leg.pressure, system.temperature, round(leg.volume_every / leg.long_step), tunes)
    return MoleculeEngine(
        system, leg.long_step, leg.thermostat, leg.thermostat_time, barostat=barostat, short_steps=leg.slow_every
    )


def continued(task: Task, engine: MoleculeEngine, inputs: Mapping[str, Output], name: str = "state") -> MoleculeState:
    """The last state of the task before, which is the input `name`, with this task's key."""
    vectors = (engine.topology.atoms, 3)
    arrays = left_by(task, inputs, {"positions": vectors, "velocities": vectors, "box": (3,)}, name)
    tensors = {part: torch.from_numpy(array) for part, array in arrays.items()}
    return MoleculeState(**tensors, key=task.key, width=float(inputs[name].document.get("volume_width", 0.0)))


class Recorder:
    """Runs a leg stretch by stretch, keeps what it recorded, and reports progress.

    It offers a checkpoint between calls of the engine only: a call begins with fresh neighbour lists, so that the state
    there determines every later bit. What was recorded so far is part of the checkpoint.
    """

    def __init__(self, engine: MoleculeEngine, leg: MoleculeLeg, context: Context) -> None:
        self.engine, self.leg, self.context = engine, leg, context
        self.stride = max(1, round(leg.sample_every / leg.long_step))
        self.frame_stride = max(1, round(leg.frame_every / leg.sample_every))
        self.wanted = max(1, round(leg.steps / leg.slow_every / self.stride))
        self.traces: list[Trace] = []
        self.frames: list[np.ndarray] = []
        self.edges: list[np.ndarray] = []
        method = ForceFieldDynamics(
            thermostat=leg.thermostat, thermostat_time=leg.thermostat_time,
            time_step=leg.time_step, sample_every=leg.sample_every, frame_every=leg.frame_every, segment=leg.frame_every,
        )  # fmt: skip
        self.tolerance = method.conserves(engine.system)[0].tolerance

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def begin(self, start: MoleculeState) -> MoleculeState:
        """Where to begin: at `start`, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None or "box" not in left.arrays:  # none, or of an earlier release
            return start
        self.traces = [Trace(**{field.name: left.arrays[f"trace_{field.name}"] for field in fields(Trace)})]
        self.frames, self.edges = list(left.arrays["frames"]), list(left.arrays["frame_edges"])
        tensors = {name: torch.from_numpy(np.array(left.arrays[name])) for name in ("positions", "velocities", "box")}
        told = left.document
        return replace(start, **tensors, step=int(told["step"]), heat=float(told["heat"]), width=float(told["width"]))

    def run(self, state: MoleculeState) -> MoleculeState:
        """Advance to the end of the leg; frames at whole multiples of their interval."""
        block = max(1, round(CALL_STEPS / self.stride))
        while (done := self.samples) < self.wanted:
            count = min(block, self.frame_stride - done % self.frame_stride, self.wanted - done)
            state, trace = self.engine.record(state, self.stride, count)
            self.traces.append(trace)
            if self.samples % self.frame_stride == 0:
                self.frames.append(state.positions.numpy().astype(np.float32))
                self.edges.append(state.box.numpy())
            self._report()
            self.context.keep(self._checkpoint(state))
        return state

    def output(self, state: MoleculeState, at_rest: bool = False) -> Output:
        """Run the leg to its end; the task's output."""
        state = self.run(state)
        if at_rest:
            state = self.engine.at_rest(state)
        trace, interval = self._joined(), self.stride * self.leg.long_step
        time, energy = interval * np.arange(1.0, self.samples + 1), self._effective_energy(trace)
        arrays = {
            "time": time,
            "potential_energy": trace.potential_energy,
            "virial": trace.virial,
            "kinetic_energy": trace.kinetic_energy,
            "centre_kinetic_energy": trace.centre_kinetic_energy,
            "effective_energy": energy,
            "momentum": np.linalg.norm(trace.momentum, axis=1) / math.sqrt(self.engine.system.temperature),
            "frame_time": interval * self.frame_stride * np.arange(1, len(self.frames) + 1),
            "frames": self._stacked(),
            "positions": state.positions.numpy(),
            "velocities": state.velocities.numpy(),
            "box": state.box.numpy(),
            "numbers": self.engine.topology.numbers,
        }
        if (self.engine.field.shape != np.eye(3)).any():
            arrays["box_shape"] = self.engine.field.shape
        document: dict[str, float] = {
            "steps": self.stride * self.samples,
            "time_step": self.leg.time_step,
            "degrees_of_freedom": self.engine.freedom,
            "energy_fluctuation": rms_about_trend(time, energy),
            "temperature": 2 * float(trace.kinetic_energy.mean()) / self.engine.freedom,
        }
        if self.engine.barostat:
            arrays |= {"volume": trace.volume, "frame_edges": np.array(self.edges).reshape(-1, 3)}
            document["volume_width"] = state.width
        return Output(arrays, document)

    def _checkpoint(self, state: MoleculeState) -> Output:
        recorded = {f"trace_{name}": values for name, values in vars(self._joined()).items()}
        last = {"positions": state.positions.numpy(), "velocities": state.velocities.numpy(), "box": state.box.numpy()}
        frames = {"frames": self._stacked(), "frame_edges": np.array(self.edges).reshape(-1, 3)}
        return Output(recorded | last | frames, {"step": state.step, "heat": state.heat, "width": state.width})

    def _stacked(self) -> np.ndarray:
        return np.array(self.frames, dtype=np.float32).reshape(-1, self.engine.topology.atoms, 3)

    def _joined(self) -> Trace:
        return Trace(
            **{field.name: np.concatenate([getattr(trace, field.name) for trace in self.traces]) for field in fields(Trace)}
        )

    def _effective_energy(self, trace: Trace) -> Array:
        energy: Array = trace.potential_energy + trace.kinetic_energy - trace.heat
        return energy / (self.engine.freedom * self.engine.system.temperature)

    def _report(self) -> None:
        interval, energy = self.stride * self.leg.long_step, self._effective_energy(self._joined())
        # before a hundred samples a slope would be the noise of a few
        drift = linear_drift(interval * np.arange(len(energy)), energy) if len(energy) >= 100 else None
        fraction = self.samples / self.wanted
        self.context.progress(Progress(fraction, interval * self.samples, "ps", drift, self.tolerance))
