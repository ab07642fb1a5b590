"""The tasks of molecular dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from manybody.core.dynamics import left_by
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.particles.drives import ConstantVolume, Drive, Pistons, VolumeTrials
from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.extended import ExtendedEngine
from manybody.engines.particles.fluids import PairFluid
from manybody.engines.particles.spec import ParticleLeg, drift_tolerance, fluid_of
from manybody.engines.particles.state import ParticleState
from manybody.engines.particles.volume_moves import VolumeMoveEngine
from manybody.numerics.statistics import rms_about_trend

MELTING_SHARE = 0.2  # of the equilibration, spent hot


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From a lattice to equilibrium at the temperature, and pressure, asked for; a liquid is melted hot first, in a fixed box."""
    system, leg = _parse(task)
    recorder = Recorder(system, leg, context)
    drive, melts = drive_of(system, leg, context, tunes=True), leg.start == "liquid"
    first = ConstantVolume(_liquid(system, leg, context, system.melting_temperature)) if melts else drive
    state, kept = recorder.begin(first.liquid.init(task.key), {})
    settled = 0
    if melts:
        steps = leg.model_copy(update={"time": leg.time * MELTING_SHARE}).steps
        state, settled = recorder.run(first, state, steps), recorder.samples_by(steps)
    return recorder.output(drive, drive.begin(state, kept), settled)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment of equilibrium dynamics, from where the task before it ended."""
    system, leg = _parse(task)
    recorder = Recorder(system, leg, context)
    drive = drive_of(system, leg, context)
    return recorder.output(drive, drive.begin(*recorder.begin(*_continued(task, system, inputs, context.device))))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well the integrator conserves."""
    return produce(task, inputs, context)


def drive_of(system: PairFluid, leg: ParticleLeg, context: Context, tunes: bool = False) -> Drive[Any]:
    """What advances a system as a leg asks for; `tunes` lets trials of the box find their size."""
    stride, device, threads = leg.exchange_stride, context.device, context.threads
    if leg.thermostat == "nose-hoover":
        engine = ExtendedEngine(
            system, leg.pressure, leg.time_step, leg.thermostat_time, leg.barostat_time,
            stride=stride, threads=threads, coupling=leg.coupling, device=device, precision=leg.precision,
        )  # fmt: skip
        return Pistons(engine)
    if leg.pressure is None:
        return ConstantVolume(_liquid(system, leg, context))
    moves = VolumeMoveEngine(
        system, leg.pressure, leg.time_step, leg.thermostat, leg.thermostat_time,
        leg.coupling, stride=stride, device=device, threads=threads, precision=leg.precision,
    )  # fmt: skip
    return VolumeTrials(moves, tunes)


def _parse(task: Task) -> tuple[PairFluid, ParticleLeg]:
    return fluid_of(task.system), ParticleLeg.model_validate(task.parameters)


def _liquid(system: PairFluid, leg: ParticleLeg, context: Context, temperature: float | None = None) -> LiquidEngine:
    assert leg.thermostat != "nose-hoover"
    return LiquidEngine(
        system, leg.time_step, leg.thermostat, leg.thermostat_time, temperature, context.device, context.threads, leg.precision
    )


def _continued(
    task: Task, system: PairFluid, inputs: Mapping[str, Output], device: str
) -> tuple[ParticleState, Mapping[str, np.ndarray]]:
    """The last state of the task before, with this task's key, and all that it left."""
    vectors = (system.atoms, 3)
    arrays = left_by(task, inputs, {"positions": vectors, "velocities": vectors, "box": (3,)})
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return ParticleState(**tensors, key=task.key), inputs["state"].arrays


S = TypeVar("S")


class Recorder:
    """Runs a leg frame by frame, keeps what it recorded, and reports progress.

    It offers a checkpoint between compiled calls only: a call begins with a fresh neighbour list, so that the state
    there determines every later bit. What was recorded so far is part of the checkpoint. Boxes are recorded where they move.
    """

    def __init__(self, system: PairFluid, leg: ParticleLeg, context: Context) -> None:
        self.system, self.leg, self.context = system, leg, context
        self.stride, self.frame_stride = leg.stride, leg.frame_stride
        self.traces: list[Trace] = []
        self.boxes: list[np.ndarray] = []
        self.frames: list[np.ndarray] = []
        self.edges: list[np.ndarray] = []
        self.tolerance = drift_tolerance(leg.thermostat_time)

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def samples_by(self, steps: int) -> int:
        """Samples taken when the leg is at the one nearest to step `steps`."""
        return max(1, round(steps / self.stride))

    def begin(self, start: ParticleState, kept: Mapping[str, np.ndarray]) -> tuple[ParticleState, Mapping[str, np.ndarray]]:
        """Where to begin: at `start` and what was `kept`, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None:
            return start, kept
        arrays = left.arrays
        self.traces = [Trace(**{field.name: arrays[f"trace_{field.name}"] for field in fields(Trace)})]
        self.frames = list(arrays["frames"])
        names = ["positions", "velocities"]
        if self.leg.pressure is not None:
            self.boxes, self.edges = [arrays["trace_box"]], list(arrays["frame_edges"])
            names.append("box")
        tensors = {name: torch.from_numpy(np.array(arrays[name])).to(start.box.device) for name in names}
        return replace(start, **tensors, step=int(left.document["step"]), heat=float(left.document["heat"])), arrays

    def run(self, drive: Drive[S], state: S, steps: int) -> S:
        """Advance to the sample nearest to step `steps` of the leg; frames at whole multiples of their interval."""
        wanted = self.samples_by(steps)
        while (done := self.samples) < wanted:
            count = min(self.frame_stride - done % self.frame_stride, wanted - done)
            state, recorded = drive.record(state, self.stride, count)
            self.traces.append(recorded.trace)
            self.boxes.append(recorded.box)
            if self.samples % self.frame_stride == 0:
                self.frames.append(_numpy(drive.particles(state).positions).astype(np.float32))
                self.edges.append(_numpy(drive.particles(state).box))
            self._report(drive.liquid, self.samples / self.samples_by(self.leg.steps))
            self.context.keep(self._checkpoint(drive, state))
        return state

    def output(self, drive: Drive[S], state: S, settled: int = 0) -> Output:
        """Run the leg to its end; the task's output. The first `settled` samples are not at its temperature."""
        state = self.run(drive, state, self.leg.steps)
        trace = self._joined()
        energy = self._effective_energy(drive.liquid, trace)
        interval = self.stride * self.leg.time_step
        arrays = {
            "time": interval * np.arange(1, self.samples + 1),
            "potential_energy": trace.potential_energy,
            "pairs": trace.pairs,
            "virial": trace.virial,
            "kinetic_energy": trace.kinetic_energy,
            "effective_energy": energy,
            "momentum": np.linalg.norm(trace.momentum, axis=1) / math.sqrt(self.system.temperature),
            "frame_time": interval * self.frame_stride * np.arange(1, len(self.frames) + 1),
            "frames": self._stacked(),
        }
        if self.leg.pressure is not None:
            box = np.concatenate(self.boxes)
            arrays |= {"edges": box, "volume": box.prod(axis=1), "frame_edges": np.array(self.edges).reshape(-1, 3)}
        document = {
            "steps": self.stride * self.samples,
            "time_step": self.leg.time_step,
            "degrees_of_freedom": drive.liquid.freedom,
            "energy_fluctuation": rms_about_trend(arrays["time"], energy),
            "temperature": 2 * float(trace.kinetic_energy[settled:].mean()) / drive.liquid.freedom,
        }
        return Output(arrays | _last(drive.particles(state)) | drive.kept(state), document)

    def _checkpoint(self, drive: Drive[S], state: S) -> Output:
        particles = drive.particles(state)
        recorded = {f"trace_{name}": values for name, values in vars(self._joined()).items()}
        last = _last(particles) | drive.kept(state)
        if self.leg.pressure is None:
            del last["box"]
        else:
            recorded |= {"trace_box": np.concatenate(self.boxes), "frame_edges": np.array(self.edges).reshape(-1, 3)}
        return Output(recorded | last | {"frames": self._stacked()}, {"step": particles.step, "heat": particles.heat})

    def _stacked(self) -> np.ndarray:
        return np.array(self.frames, dtype=np.float32).reshape(-1, self.system.atoms, 3)

    def _joined(self) -> Trace:
        return Trace.joined(self.traces)

    def _effective_energy(self, engine: LiquidEngine, trace: Trace) -> np.ndarray:
        energy: np.ndarray = trace.potential_energy + trace.kinetic_energy - trace.heat
        return energy / (engine.freedom * self.system.temperature)

    def _report(self, engine: LiquidEngine, fraction: float) -> None:
        energy = self._effective_energy(engine, self._joined())
        interval = self.stride * self.leg.time_step
        drift, error = _drift(interval * np.arange(len(energy)), energy)
        told = drift if error < self.tolerance else None  # before, it would be the noise of a few samples
        self.context.progress(Progress(min(1.0, fraction), interval * self.samples, "tau", told, self.tolerance))


def _numpy(tensor: Tensor) -> np.ndarray:
    values: np.ndarray = tensor.cpu().numpy()
    return values


def _last(particles: ParticleState) -> dict[str, np.ndarray]:
    return {name: _numpy(getattr(particles, name)) for name in ("positions", "velocities", "box")}


def _drift(time: np.ndarray, series: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line through a series, and its standard error for independent samples."""
    if len(series) < 3:
        return 0.0, math.inf
    spread = float(np.sum((time - time.mean()) ** 2))
    slope = float((time - time.mean()) @ series) / spread
    return slope, rms_about_trend(time, series) * math.sqrt(len(series) / (len(series) - 2) / spread)
