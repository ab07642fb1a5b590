"""The tasks of coexistence: what a node runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from manybody.core.dynamics import Thermostat, left_by
from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.random import Key
from manybody.core.task import Output, Progress, Task
from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.known_answers import energy_tail, pair_energy
from manybody.engines.particles.melting.known_answers import melting_densities
from manybody.engines.particles.melting.slabs import crystalline, normal_pressure
from manybody.engines.particles.melting.spec import STRIDE, LennardJonesCoexistence, Stretch
from manybody.engines.particles.relaxation import relax
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.state import ParticleState
from manybody.engines.particles.volume_moves import VolumeMoveEngine
from manybody.numerics.barostats import Coupling
from manybody.numerics.pairs import LENNARD_JONES

HOT, MELTING_TIME = 2.0, 6.0  # temperature above the one asked for, and time: what melts an expanded crystal
SETTLING_SHARE = 0.4  # of a phase's preparation, not recorded
CONTACT_FORCE = 200.0  # epsilon/sigma: what collisions in the liquid reach; joined phases are relaxed to it
FAR = 6.0  # sigma: pairs beyond are counted at g(r) = 1


def crystal(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The crystal alone, all edges free: its lattice constant."""
    system, stretch = _parse(task)
    constant = (4 / melting_densities(system.temperature)[0]) ** (1 / 3)
    cells = np.array([system.cells, system.cells, system.length // 2])
    corner = np.stack(np.meshgrid(*[np.arange(count) for count in cells], indexing="ij"), axis=-1).reshape(-1, 1, 3)
    basis = np.array([[0.25, 0.25, 0.25], [0.75, 0.75, 0.25], [0.75, 0.25, 0.75], [0.25, 0.75, 0.75]])
    state = _at_rest((corner + basis).reshape(-1, 3) * constant, cells * constant, system.temperature, task.key)
    return _alone(system, stretch, state, "isotropic", context)


def liquid(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The liquid alone on the crystal's cross-section, its length free."""
    system, stretch = _parse(task)
    solid = _continued(task, system.atoms // 2, inputs, "crystal")
    density, aim = melting_densities(system.temperature)
    by = torch.tensor([1.0, 1.0, density / aim], dtype=torch.float64)
    state = replace(solid, positions=solid.positions * by, box=solid.box * by)
    hot = LiquidEngine(_phase(system), stretch.time_step, "bussi", 0.2, system.temperature + HOT, threads=context.threads)
    state = hot.step(state, round(MELTING_TIME / stretch.time_step))
    left = crystalline(state.positions.numpy(), state.box.numpy(), _constant(system, state))
    if left > 0.1 * len(state.positions):
        raise TaskError(
            f"{task.label}: expected a liquid; {left} of {len(state.positions)} atoms are crystalline at the end of melting. "
            "Prepare at a higher temperature or a lower pressure."
        )
    return _alone(system, stretch, state, "z", context)


def join(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Crystal and liquid end to end, parted where they overlap, and brought to the temperature that they start from."""
    system, stretch = _parse(task)
    below, above = (_continued(task, system.atoms // 2, inputs, name) for name in ("crystal", "liquid"))
    shift = torch.tensor([0.0, 0.0, float(below.box[2])], dtype=torch.float64)
    positions = torch.cat([below.positions % below.box, above.positions % above.box + shift]).numpy()
    state = _at_rest(positions, (below.box + above.box * torch.tensor([0, 0, 1])).numpy(), stretch.temperature, task.key)
    engine = LiquidEngine(_whole(system), stretch.time_step, "bussi", 0.2, stretch.temperature, threads=context.threads)
    state = engine.step(relax(engine, state, CONTACT_FORCE), round(stretch.time / stretch.time_step))
    tails = {
        f"{quantity}_{phase}": inputs[phase].document[quantity]
        for phase in ("crystal", "liquid")
        for quantity in ("density", "tail")
    }
    return Output(_arrays(state), {"phases": tails | {"crystal_at_start": _share(system, state)}})


def settle(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The joined phases on their way to the melting point."""
    return produce(task, inputs, context)


def produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A stretch at constant enthalpy and pressure along the box."""
    system, stretch = _parse(task)
    state = _continued(task, system.atoms, inputs)
    engine = _moves(system, _whole(system), stretch, "none", "z", context)
    traces, boxes, frames, profiles, shares, squares = [], [], [], [], [], []
    for sample in range(1, stretch.samples + 1):
        state, trace = engine.record(state, stretch.cycles)
        traces.append(trace.particles.last)
        boxes.append(state.box.numpy())
        if sample % stretch.frame_stride == 0:
            frames.append(state.positions.numpy().astype(np.float32))
            profiles.append(_profile(system, stretch, state))
            shares.append(_share(system, state))
            squares.append(float((engine.liquid.evaluate(state.positions, state.box)[0] ** 2).mean()))
        context.progress(Progress(sample / stretch.samples, sample * stretch.sample_every, "tau"))
    joined = Trace.joined(traces)
    recorded = _recorded(system, stretch, engine.liquid, joined)
    recorded |= {"frames": np.array(frames), "profile": np.array(profiles), "boxes": np.array(boxes)}
    recorded |= {"crystal_share": np.array(shares), "force_square": np.array(squares)}
    recorded["frame_time"] = stretch.sample_every * stretch.frame_stride * np.arange(1, len(frames) + 1)
    return Output(
        recorded | _arrays(state), {"phases": dict(inputs["state"].document["phases"])} | _facts(stretch, engine.liquid, joined)
    )


def conserve(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A short stretch in a fixed box, recorded closely, to see how well the integrator conserves."""
    system, stretch = _parse(task)
    engine = LiquidEngine(_whole(system), stretch.time_step, "none", threads=context.threads)
    _, trace = engine.record(_continued(task, system.atoms, inputs), 1, stretch.samples)
    recorded = _recorded(system, stretch, engine, trace)
    energy, time = recorded["effective_energy"], recorded["time"] - recorded["time"].mean()
    rest = energy - energy.mean() - float(time @ energy) / float(time @ time) * time
    return Output(recorded, {"energy_fluctuation": float(np.sqrt(np.mean(rest**2)))} | _facts(stretch, engine, trace))


def _alone(
    system: LennardJonesCoexistence, stretch: Stretch, state: ParticleState, coupling: Coupling, context: Context
) -> Output:
    """A phase by itself at the virial pressure: its mean density, the tail of its free energy, its last state at that density."""
    engine = _moves(system, _phase(system), stretch, "bussi", coupling, context)
    cycles = round(stretch.time / (STRIDE * stretch.time_step))
    settling = round(SETTLING_SHARE * cycles)
    state = engine.step(state, settling)
    volumes: list[float] = []
    tails: list[float] = []
    while len(volumes) < cycles - settling:
        state, trace = engine.record(state, min(10, cycles - settling - len(volumes)))
        volumes.extend(trace.box.prod(axis=1))
        tails.append(tail(state.positions.numpy(), state.box.numpy(), system.cutoff))
        context.progress(
            Progress(len(volumes) / (cycles - settling), STRIDE * stretch.time_step * (settling + len(volumes)), "tau")
        )
    by = float(np.mean(volumes)) / float(state.box.prod())
    factors = torch.tensor([by ** (1 / 3)] * 3 if coupling == "isotropic" else [1.0, 1.0, by], dtype=torch.float64)
    state = replace(state, positions=state.positions * factors, box=state.box * factors)
    return Output(_arrays(state), {"density": len(state.positions) / float(np.mean(volumes)), "tail": float(np.mean(tails))})


def tail(positions: np.ndarray, box: np.ndarray, cutoff: float) -> float:
    """What the full potential adds to the shifted one, an atom: pairs beyond the cutoff, and u(cutoff) for each within.

    Pairs up to `FAR` are counted, in a box repeated until it is wide enough; beyond, g(r) = 1.
    """
    copies = np.ceil(2 * FAR / box).astype(int)
    cells = np.stack(np.meshgrid(*[np.arange(count) for count in copies], indexing="ij"), axis=-1).reshape(-1, 1, 3)
    repeated, wide = (positions + cells * box).reshape(-1, 3), box * copies
    kernel = LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0})
    _, far, _, _ = kernel.evaluate(repeated, wide, FAR)
    _, near, _, pairs = kernel.evaluate(repeated, wide, cutoff)
    density = len(positions) / float(box.prod())
    return (far - near + pair_energy(cutoff) * pairs) / len(repeated) + energy_tail(density, FAR)


def _recorded(system: LennardJonesCoexistence, stretch: Stretch, engine: LiquidEngine, trace: Trace) -> dict[str, np.ndarray]:
    """The series of a stretch, by name."""
    unit = engine.freedom * system.temperature
    return {
        "time": stretch.sample_every * np.arange(1, len(trace.heat) + 1),
        "temperature": 2 * trace.kinetic_energy / engine.freedom,
        "potential_energy": trace.potential_energy,
        "kinetic_energy": trace.kinetic_energy,
        "effective_energy": (trace.potential_energy + trace.kinetic_energy - trace.heat) / unit,
        "momentum": np.linalg.norm(trace.momentum, axis=1) / np.sqrt(system.temperature),
    }


def _facts(stretch: Stretch, engine: LiquidEngine, trace: Trace) -> dict[str, float]:
    return {
        "time_step": stretch.time_step,
        "degrees_of_freedom": engine.freedom,
        "temperature": 2 * float(trace.kinetic_energy.mean()) / engine.freedom,
    }


def _profile(system: LennardJonesCoexistence, stretch: Stretch, state: ParticleState) -> np.ndarray:
    return normal_pressure(state.positions.numpy(), state.velocities.numpy(), state.box.numpy(), system.cutoff, stretch.bins)


def _share(system: LennardJonesCoexistence, state: ParticleState) -> float:
    """Share of atoms that are crystalline."""
    return crystalline(state.positions.numpy(), state.box.numpy(), _constant(system, state)) / len(state.positions)


def _constant(system: LennardJonesCoexistence, state: ParticleState) -> float:
    """The lattice constant across the box."""
    return float(state.box[0]) / system.cells


def _phase(system: LennardJonesCoexistence) -> LennardJonesLiquid:
    """One phase of the box, as `LiquidEngine` takes it; its density says only how long a compiled call is."""
    density = melting_densities(system.temperature)[0]
    return LennardJonesLiquid(
        temperature=system.temperature, density=density, atoms=system.atoms // 2, cutoff=system.cutoff, tail_correction=False
    )


def _whole(system: LennardJonesCoexistence) -> LennardJonesLiquid:
    return _phase(system).model_copy(update={"atoms": system.atoms})


def _moves(
    system: LennardJonesCoexistence, particles: LennardJonesLiquid, stretch: Stretch, thermostat: Thermostat, coupling: Coupling,
    context: Context,
) -> VolumeMoveEngine:  # fmt: skip
    return VolumeMoveEngine(
        particles,
        system.virial_pressure,
        stretch.time_step,
        thermostat,
        coupling=coupling,
        stride=STRIDE,
        threads=context.threads,
    )


def _at_rest(positions: np.ndarray, box: np.ndarray, temperature: float, key: Key) -> ParticleState:
    """Atoms at places, with Maxwell velocities and no total momentum."""
    velocities = key.derive("velocities").generator().standard_normal(positions.shape) * np.sqrt(temperature)
    velocities -= velocities.mean(axis=0)
    x, v, edges = (torch.from_numpy(np.ascontiguousarray(values)) for values in (positions, velocities, box))
    return ParticleState(x, v, edges, key)


def _arrays(state: ParticleState) -> dict[str, np.ndarray]:
    return {name: getattr(state, name).numpy() for name in ("positions", "velocities", "box")}


def _parse(task: Task) -> tuple[LennardJonesCoexistence, Stretch]:
    return LennardJonesCoexistence.model_validate(task.system), Stretch.model_validate(task.parameters)


def _continued(task: Task, atoms: int, inputs: Mapping[str, Output], name: str = "state") -> ParticleState:
    """The last state of the input `name`, with this task's key."""
    arrays = left_by(task, inputs, {"positions": (atoms, 3), "velocities": (atoms, 3), "box": (3,)}, name)
    return ParticleState(**{part: torch.from_numpy(array) for part, array in arrays.items()}, key=task.key)
