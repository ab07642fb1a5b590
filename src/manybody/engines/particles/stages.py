"""The tasks of molecular dynamics: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import torch

from manybody.core.dynamics import Leg
from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics
from manybody.engines.particles.state import ParticleState

MELTING_SHARE = 0.2  # of the equilibration, spent hot
MELTING_HEAT = 1.0  # epsilon above the temperature asked for: melts the lattice within a few tau at liquid densities


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From a lattice to the liquid: melted hot, then brought to the temperature asked for."""
    system, leg = _parse(task)
    hot_leg = leg.model_copy(update={"time": leg.time * MELTING_SHARE})
    hot = _engine(system, hot_leg, context, system.temperature + MELTING_HEAT)
    recorder = Recorder(system, leg, context)
    state = recorder.run(hot, recorder.begin(hot.init(task.key)), hot_leg.steps)
    return recorder.output(_engine(system, leg, context), state, recorder.samples_by(hot_leg.steps))


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment of equilibrium dynamics, from where the task before it ended."""
    system, leg = _parse(task)
    recorder = Recorder(system, leg, context)
    return recorder.output(_engine(system, leg, context), recorder.begin(_continued(task, system, inputs, context.device)))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well the integrator conserves."""
    return produce(task, inputs, context)


def _parse(task: Task) -> tuple[LennardJonesLiquid, Leg]:
    return LennardJonesLiquid.model_validate(task.system), Leg.model_validate(task.parameters)


def _engine(system: LennardJonesLiquid, leg: Leg, context: Context, temperature: float | None = None) -> LiquidEngine:
    return LiquidEngine(system, leg.time_step, leg.thermostat, leg.thermostat_time, temperature, context.device, context.threads)


def _continued(task: Task, system: LennardJonesLiquid, inputs: Mapping[str, Output], device: str) -> ParticleState:
    """The last state of the task before, with this task's key."""
    if "state" not in inputs:
        raise TaskError(f"{task.label}: expected an input `state`; got {', '.join(inputs) or 'none'}. Add it to the task.")
    arrays = inputs["state"].arrays
    shape = (system.atoms, 3)
    for name in ("positions", "velocities"):
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise TaskError(
                f"{task.label}: expected finite `{name}` of shape {list(shape)}; got shape {list(arrays[name].shape)}. "
                "Compute the task it comes from again."
            )
    tensors = {
        name: torch.from_numpy(np.array(arrays[name], dtype=np.float64)).to(device) for name in ("positions", "velocities", "box")
    }
    return ParticleState(**tensors, key=task.key)


class Recorder:
    """Runs a leg frame by frame, keeps what it recorded, and reports progress.

    It offers a checkpoint between compiled calls only: a call begins with a fresh neighbour list, so that the state
    there determines every later bit. What was recorded so far is part of the checkpoint.
    """

    def __init__(self, system: LennardJonesLiquid, leg: Leg, context: Context) -> None:
        self.system, self.leg, self.context = system, leg, context
        self.stride = max(1, round(leg.sample_every / leg.time_step))
        self.frame_stride = max(1, round(leg.frame_every / leg.sample_every))
        self.traces: list[Trace] = []
        self.frames: list[np.ndarray] = []
        method = MolecularDynamics(
            thermostat=leg.thermostat, thermostat_time=leg.thermostat_time,
            time_step=leg.time_step, sample_every=leg.sample_every, frame_every=leg.frame_every, segment=leg.frame_every,
        )  # fmt: skip
        self.tolerance = method.conserves(system)[0].tolerance

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def samples_by(self, steps: int) -> int:
        """Samples taken when the leg is at the one nearest to step `steps`."""
        return max(1, round(steps / self.stride))

    def begin(self, start: ParticleState) -> ParticleState:
        """Where to begin: at `start`, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None:
            return start
        self.traces = [Trace(**{field.name: left.arrays[f"trace_{field.name}"] for field in fields(Trace)})]
        self.frames = list(left.arrays["frames"])
        tensors = {name: torch.from_numpy(left.arrays[name]).to(start.box.device) for name in ("positions", "velocities")}
        return replace(start, **tensors, step=int(left.document["step"]), heat=float(left.document["heat"]))

    def run(self, engine: LiquidEngine, state: ParticleState, steps: int) -> ParticleState:
        """Advance to the sample nearest to step `steps` of the leg; frames at whole multiples of their interval."""
        wanted = self.samples_by(steps)
        while (done := self.samples) < wanted:
            count = min(self.frame_stride - done % self.frame_stride, wanted - done)
            state, trace = engine.record(state, self.stride, count)
            self.traces.append(trace)
            if self.samples % self.frame_stride == 0:
                self.frames.append(state.positions.cpu().numpy().astype(np.float32))
            self._report(engine, self.samples / self.samples_by(self.leg.steps))
            self.context.keep(self._checkpoint(state))
        return state

    def output(self, engine: LiquidEngine, state: ParticleState, settled: int = 0) -> Output:
        """Run the leg to its end; the task's output. The first `settled` samples are not at its temperature."""
        state = self.run(engine, state, self.leg.steps)
        trace = self._joined()
        energy = self._effective_energy(engine, trace)
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
            "positions": state.positions.cpu().numpy(),
            "velocities": state.velocities.cpu().numpy(),
            "box": state.box.cpu().numpy(),
        }
        document = {
            "steps": self.stride * self.samples,
            "time_step": self.leg.time_step,
            "degrees_of_freedom": engine.freedom,
            "energy_fluctuation": _rms_about_trend(arrays["time"], energy),
            "temperature": 2 * float(trace.kinetic_energy[settled:].mean()) / engine.freedom,
        }
        return Output(arrays, document)

    def _checkpoint(self, state: ParticleState) -> Output:
        recorded = {f"trace_{name}": values for name, values in vars(self._joined()).items()}
        last = {"positions": state.positions.cpu().numpy(), "velocities": state.velocities.cpu().numpy()}
        return Output(recorded | last | {"frames": self._stacked()}, {"step": state.step, "heat": state.heat})

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


def _drift(time: np.ndarray, series: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line through a series, and its standard error for independent samples."""
    if len(series) < 3:
        return 0.0, math.inf
    spread = float(np.sum((time - time.mean()) ** 2))
    slope = float((time - time.mean()) @ series) / spread
    return slope, _rms_about_trend(time, series) * math.sqrt(len(series) / (len(series) - 2) / spread)


def _rms_about_trend(time: np.ndarray, series: np.ndarray) -> float:
    """Root mean square deviation of a series from its least-squares line; 0 for fewer than three samples."""
    if len(series) < 3:
        return 0.0
    centred = time - time.mean()
    slope = float(centred @ series) / float(centred @ centred)
    return float(np.sqrt(np.mean((series - series.mean() - slope * centred) ** 2)))
