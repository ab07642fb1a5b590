"""The tasks of free-energy sampling: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from manybody.core.dynamics import left_by
from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.molecules.bias import BiasedEngine, BiasedState, BiasedTrace
from manybody.engines.molecules.free_energy import (
    block_of,
    inefficiency,
    populations,
    restraint_energies,
    reweighted,
    strains,
)
from manybody.engines.molecules.sampling import BiasedLeg, Metadynamics, Umbrella, Weighing, Window
from manybody.engines.molecules.spec import Molecule
from manybody.engines.molecules.state import MoleculeState
from manybody.numerics.mbar import mixture
from manybody.numerics.statistics import linear_drift, rms_about_trend

Array = NDArray[np.float64]

CALL_STEPS = 2500  # steps between looks at the clock, about: some tens of ms; a matter of the leg alone, as results are
LEAST_DRIFT = 100  # samples before which a slope would be the noise of a few


def equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """From the coordinates of the file to equilibrium, without a bias."""
    engine, leg = _engine(task)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(engine.init(task.key)))


def sample(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A segment of a chain: from the state, and the bias, that the task before it ended with."""
    engine, leg = _engine(task)
    recorder = Recorder(engine, leg, context)
    return recorder.output(recorder.begin(_continued(task, engine, inputs)))


def window(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """One window of umbrella sampling: pulled there, settled, then sampled."""
    engine, leg = _engine(task)
    assert isinstance(leg.bias, Window)
    recorder = Recorder(engine, leg, context)
    steps = max(1, round(leg.bias.approach / leg.time_step))
    return recorder.output(recorder.begin(_continued(task, engine, inputs), lambda state: _settled(engine, state, steps)))


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch recorded closely, to see how well the integrator conserves."""
    return sample(task, inputs, context)


def weigh(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Populations without the bias, from the samples of all parts: see `free_energy`."""
    spec, kT = Weighing.model_validate(task.parameters), float(task.system["temperature"])
    parts = [inputs[name] for name in sorted(inputs)]
    torsions = [np.asarray(part.arrays["torsions"], dtype=np.float64) for part in parts]
    if isinstance(spec.bias, Umbrella):
        arrays, document = _weigh_windows(spec, spec.bias, torsions, kT, context)
    else:
        weights, kept = np.ones(sum(map(len, torsions))), np.concatenate(torsions)
        if isinstance(spec.bias, Metadynamics):
            weights = reweighted(_joined(parts, "bias_energy"), _joined(parts, "offset"), kT)
        block = block_of(len(kept), spec.blocks)
        found = [populations(kept[block != left], weights[block != left], spec.bins) for left in range(-1, spec.blocks)]
        arrays, document = {"populations": np.array(found)}, {"effective_share": _effective_share(weights)}
    return Output(arrays | _one_after_the_other(parts), document)


# --- one stretch -----------------------------------------------------------------------------------------------


def _engine(task: Task) -> tuple[BiasedEngine, BiasedLeg]:
    leg = BiasedLeg.model_validate(task.parameters)
    system = Molecule.model_validate(task.system)
    return BiasedEngine(system, leg.torsions, leg.bias, leg.time_step, leg.friction_time), leg


def _continued(task: Task, engine: BiasedEngine, inputs: Mapping[str, Output]) -> BiasedState:
    """The last state of the task before, with this task's key; its bias goes on where both have hills."""
    vectors = (engine.plain.topology.atoms, 3)
    x, v = map(torch.from_numpy, left_by(task, inputs, {"positions": vectors, "velocities": vectors}).values())
    arrays = inputs["state"].arrays
    fresh = engine.begin(MoleculeState(x, v, torch.zeros(3, dtype=torch.float64), task.key))
    if fresh.grid.shape == arrays["grid"].shape and fresh.grid.numel():
        return replace(fresh, hills=_tensor(arrays["hills"]), grid=_tensor(arrays["grid"]))
    return fresh


def _settled(engine: BiasedEngine, state: BiasedState, steps: int) -> BiasedState:
    """The state at the window's centre, after as many steps again there; time and work count from here."""
    return engine.step(engine.pull(state, steps), steps)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))


class Recorder:
    """Runs a leg call by call, keeps what it recorded, and reports progress.

    It offers a checkpoint between calls of the engine only: a call computes forces afresh, so that the state there
    determines every later bit. What was recorded so far, and the hills, are part of the checkpoint.
    """

    def __init__(self, engine: BiasedEngine, leg: BiasedLeg, context: Context) -> None:
        self.engine, self.leg, self.context = engine, leg, context
        self.traces: list[BiasedTrace] = []

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return sum(len(trace.heat) for trace in self.traces)

    def begin(self, start: BiasedState, settle: Callable[[BiasedState], BiasedState] | None = None) -> BiasedState:
        """Where to begin: at `start`, settled, or where an earlier attempt at the same task left a checkpoint."""
        left = self.context.resume()
        if left is None:
            return start if settle is None else settle(start)
        self.traces = [BiasedTrace(**{field.name: left.arrays[f"trace_{field.name}"] for field in fields(BiasedTrace)})]
        kept = {name: _tensor(left.arrays[name]) for name in ("positions", "velocities", "centres", "hills", "grid")}
        x, v = kept.pop("positions"), kept.pop("velocities")
        molecule = replace(start.molecule, positions=x, velocities=v, step=int(left.document["step"]))
        return BiasedState(replace(molecule, heat=float(left.document["heat"])), float(left.document["work"]), **kept)

    def output(self, state: BiasedState) -> Output:
        """Run the leg to its end; the task's output."""
        leg, block = self.leg, max(1, round(CALL_STEPS / self.leg.stride))
        while (done := self.samples) < leg.samples:
            state, trace = self.engine.record(state, leg.stride, min(block, leg.samples - done))
            self.traces.append(trace)
            self._report()
            self.context.keep(self._checkpoint(state))
        trace, time = self._joined(), self._times()
        energy = self._effective_energy(trace)
        arrays = {
            "time": time,
            "torsions": trace.torsions,
            "potential_energy": trace.potential_energy,
            "bias_energy": trace.bias_energy,
            "offset": trace.offset,
            "effective_energy": energy,
            **self._last(state),
            "box": np.zeros(3),
            "numbers": self.engine.plain.topology.numbers,
        }
        document = {
            "steps": leg.stride * leg.samples,
            "time_step": leg.time_step,
            "degrees_of_freedom": self.engine.freedom,
            "energy_fluctuation": rms_about_trend(time, energy),
            "temperature": 2 * float(trace.kinetic_energy.mean()) / self.engine.freedom,
        }
        return Output(arrays, document)

    def _checkpoint(self, state: BiasedState) -> Output:
        recorded = {f"trace_{name}": values for name, values in vars(self._joined()).items()}
        document = {"step": state.molecule.step, "heat": state.molecule.heat, "work": state.work}
        return Output(recorded | self._last(state), document)

    def _last(self, state: BiasedState) -> dict[str, np.ndarray]:
        held = {"centres": state.centres, "hills": state.hills, "grid": state.grid}
        held |= {"positions": state.molecule.positions, "velocities": state.molecule.velocities}
        return {name: tensor.numpy() for name, tensor in held.items()}

    def _joined(self) -> BiasedTrace:
        names = [field.name for field in fields(BiasedTrace)]
        return BiasedTrace(**{name: np.concatenate([getattr(trace, name) for trace in self.traces]) for name in names})

    def _times(self) -> Array:
        return self.leg.stride * self.leg.time_step * np.arange(1.0, self.samples + 1)

    def _effective_energy(self, trace: BiasedTrace) -> Array:
        energy: Array = trace.potential_energy + trace.bias_energy + trace.kinetic_energy - trace.heat - trace.work
        return energy / (self.engine.freedom * self.engine.kT)

    def _report(self) -> None:
        time, energy = self._times(), self._effective_energy(self._joined())
        drift = linear_drift(time, energy) if len(energy) >= LEAST_DRIFT else None
        self.context.progress(Progress(len(time) / self.leg.samples, float(time[-1]), "ps", drift))


# --- all of them together --------------------------------------------------------------------------------------


def _weigh_windows(
    spec: Weighing, bias: Umbrella, torsions: list[Array], kT: float, context: Context
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Populations by MBAR, solved anew with each block of every window left out; strained windows are not among them."""
    held = strains(torsions, np.array(bias.centres), bias.stiffness, kT) < bias.most_strain
    if not held.any():
        raise TaskError(
            f"Every window's restraint holds more than {bias.most_strain:g} kT: none stays by its centre. "
            "Take a larger `stiffness`, and more windows."
        )
    torsions, centres = [run for run, is_held in zip(torsions, held, strict=True) if is_held], np.array(bias.centres)[held]
    kept, counts = np.concatenate(torsions), np.array([len(run) for run in torsions])
    energies = restraint_energies(kept, centres, bias.stiffness, kT)
    block = [block_of(count, spec.blocks) for count in counts]
    whole = mixture(energies, counts)
    found = [populations(kept, whole.weights(), spec.bins)]
    for left in range(spec.blocks):
        rest = [number != left for number in block]
        fewer, times = np.array([run.sum() for run in rest]), np.concatenate(rest).astype(np.float64)
        part = mixture(energies, fewer, whole.free_energies, times)
        found.append(populations(kept, part.weights(), spec.bins))
        context.progress(Progress((left + 1) / (spec.blocks + 1)))
    correlated = inefficiency(torsions)  # samples that make one independent one, which MBAR's errors take each for
    arrays = {
        "populations": np.array(found),
        "windows": np.flatnonzero(held),
        "window_free_energies": kT * whole.free_energies,
        "window_errors": kT * whole.errors * math.sqrt(correlated),
    }
    told = {
        "effective_share": _effective_share(whole.weights()),
        "inefficiency": correlated,
        "windows_left_out": int((~held).sum()),
    }
    return arrays, told


def _effective_share(weights: Array) -> float:
    """(sum w)^2 / (N sum w^2): the share of samples that as many of equal weight would be (Kish)."""
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def _joined(parts: list[Output], name: str) -> Array:
    return np.concatenate([np.asarray(part.arrays[name], dtype=np.float64) for part in parts])


def _one_after_the_other(parts: list[Output]) -> dict[str, np.ndarray]:
    """Time and conserved energy of all parts as one series, each going on where the one before ended."""
    times, energies = [np.zeros(1)], [np.zeros(1)]
    for part in parts:
        time, energy = part.arrays["time"], part.arrays["effective_energy"]
        times.append(times[-1][-1] + time)
        energies.append(energies[-1][-1] + energy - energy[0])
    return {"time": np.concatenate(times[1:]), "effective_energy": np.concatenate(energies[1:])}
