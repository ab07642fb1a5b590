"""Molecular dynamics of particles that interact in pairs, in a periodic box."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from manybody.core.dynamics import Thermostat
from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.random import Key
from manybody.engines.particles.fluids import PairFluid, SimpleFluid
from manybody.engines.particles.pair_choices import Formula, TablePotential
from manybody.engines.particles.state import ParticleState
from manybody.numerics import jit, plain_dynamics
from manybody.numerics.integrators import LANGEVIN, LONGEST_STEP, NO_BATH, RESCALING, HeatBath
from manybody.numerics.neighbours import Sorted
from manybody.numerics.pairs import LENNARD_JONES, PairKernel, PairPotential, Precision
from manybody.numerics.plain_pairs import PlainPairs, PlainTable
from manybody.numerics.tabulated import table_kernel

SKINS = (0.8, 0.35)  # how much further than the cutoff the lists of clusters and of atoms reach: speed, not physics
SMALL, SMALL_SKIN = 200, 0.25  # below so many atoms a list costs little, and one with a narrow skin is the fastest
PAIR_SECONDS = 4e-9  # a pair within the cutoff and step, about: it only sets how long a compiled call lasts
CALL_SECONDS = 0.2  # so that Ctrl-C is answered at once
LOOK_BACK = 4  # steps: a force that is no number is noticed in the step after it
FEWEST_STEPS = 16  # a call begins with a list; below this it would be most of the work


class ExplodedError(TaskError):
    """A run that cannot go on; `state` is the last sound one."""

    def __init__(self, message: str, state: ParticleState | None = None) -> None:
        self.state = state
        super().__init__(message)


@dataclass(frozen=True)
class Trace:
    """What a stretch of dynamics recorded, each [samples]; momentum [samples, 3]. Energies are shifted at the cutoff."""

    potential_energy: np.ndarray
    virial: np.ndarray
    pairs: np.ndarray
    kinetic_energy: np.ndarray
    heat: np.ndarray
    momentum: np.ndarray

    @classmethod
    def joined(cls, traces: Sequence[Trace]) -> Trace:
        """Several stretches as one."""
        return cls(**{field.name: np.concatenate([getattr(trace, field.name) for trace in traces]) for field in fields(cls)})

    @property
    def last(self) -> Trace:
        """The last sample alone."""
        return Trace(**{field.name: getattr(self, field.name)[-1:] for field in fields(self)})


class LiquidEngine:
    """Advances a fluid of one kind of particle; passes `manybody.testing.engine`.

    thermostat: ``bussi`` (stochastic velocity rescaling), ``langevin`` or ``none``, with relaxation time
    `thermostat_time`. On ``cpu`` compiled kernels run, on `threads` threads, with the same bits for any
    number of them; any other `device` runs their plain torch twins. precision: what pair forces are computed in; with
    ``mixed`` it is single on ``cpu``, and all else is double. `evaluate` is the forces' own precision.
    """

    def __init__(
        self,
        system: PairFluid,
        time_step: float = 0.004,
        thermostat: Thermostat = "none",
        thermostat_time: float = 0.5,
        temperature: float | None = None,
        device: str = "cpu",
        threads: int = 1,
        precision: Precision = "double",
    ) -> None:
        self.system = system
        self.time_step = time_step
        self.kernel, self.plain = kernels(system, precision)
        self.device = device
        self.threads = min(threads, jit.most_threads())
        self.shift = self.kernel.energy(system.cutoff)
        kind = {"none": NO_BATH, "bussi": RESCALING, "langevin": LANGEVIN}[thermostat]
        freedom = 3 * system.atoms - (0 if thermostat == "langevin" else 3)
        self.bath = HeatBath(kind, system.temperature if temperature is None else temperature, thermostat_time, freedom)

    @property
    def freedom(self) -> int:
        """Degrees of freedom: 3N, less 3 where the total momentum is conserved."""
        return int(self.bath.freedom)

    def init(self, key: Key) -> ParticleState:
        """A face-centred cubic lattice (with vacancies where it does not fit), Maxwell velocities, no total momentum."""
        atoms, edge = self.system.atoms, self.system.box
        generator = key.derive("start").generator()
        cells = math.ceil((atoms / 4) ** (1 / 3) - 1e-9)
        corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
        basis = np.array([[0.25, 0.25, 0.25], [0.75, 0.75, 0.25], [0.75, 0.25, 0.75], [0.25, 0.75, 0.75]])
        sites = (corner + basis).reshape(-1, 3) * (edge / cells)
        positions = sites[np.sort(generator.permutation(len(sites))[:atoms])]
        velocities = generator.standard_normal((atoms, 3)) * math.sqrt(self.bath.kT)
        velocities -= velocities.mean(axis=0)
        box = np.full(3, edge)
        x, v, edges = (torch.from_numpy(values).to(self.device) for values in (positions, velocities, box))
        return ParticleState(x, v, edges, key)

    def step(self, state: ParticleState, steps: int = 1) -> ParticleState:
        """The state `steps` time steps later."""
        return self.record(state, steps, 1)[0]

    def record(self, state: ParticleState, stride: int, samples: int) -> tuple[ParticleState, Trace]:
        """Advance by ``samples * stride`` steps and record every `stride` of them.

        Raises `TaskError` where the run explodes.
        """
        rows, atoms = np.empty((samples, 8)), None
        for steps, block in in_calls(rows, stride, self._steps_a_call(stride * samples)):
            state, atoms = self._call(state, atoms, steps, block)
        return state, self.trace(rows)

    def observables(self, state: ParticleState) -> dict[str, float]:
        """Potential energy a particle and pressure (both of the shifted potential, no tail), and temperature."""
        _, energy, virial, pairs = self.evaluate(state.positions, state.box)
        kinetic = 0.5 * float((state.velocities**2).sum())
        volume = float(state.box.prod())
        return {
            "potential_energy": (energy - self.shift * pairs) / self.system.atoms,
            "pressure": (2 * kinetic + virial) / (3 * volume),
            "temperature": 2 * kinetic / self.freedom,
        }

    def evaluate(self, positions: Tensor, box: Tensor) -> tuple[Tensor, float, float, float]:
        """Forces [atoms, 3], energy (not shifted), virial and number of pairs of `positions` [atoms, 3] in `box` [3]."""
        if self.device != "cpu":
            return self.plain.evaluate(positions, box, self.system.cutoff)
        forces, *totals = self.kernel.evaluate(positions.numpy(), box.numpy(), self.system.cutoff, self.threads)
        return torch.from_numpy(forces), *totals

    def refuse_narrow(self, box: Tensor, state: ParticleState) -> None:
        """Raise `ExplodedError`, with `state` as the last sound one, where the cutoff lies beyond half of `box` [3]."""
        if self.system.cutoff > 0.5 * float(box.min()) * (1 + 1e-12):
            raise ExplodedError(
                f"Step {state.step}: the cutoff, {self.system.cutoff:g}, is beyond half the shortest edge of the box, "
                f"{float(box.min()):.4g}. Lower the cutoff, take more atoms, or ask for a lower pressure.",
                state,
            )

    def refuse_runaway(self, state: ParticleState) -> None:
        """Raise `ExplodedError` where an atom of `state` would fly too far in its next time step, or has no finite number."""
        fast = state.velocities.abs() + 0.5 * self.time_step * self.evaluate(state.positions, state.box)[0].abs()
        bad = ~((fast**2).sum(dim=1) * self.time_step**2 < LONGEST_STEP**2)
        if bool(bad.any()):
            raise self.exploded(state, state.step, int(torch.nonzero(bad)[0, 0]))

    def conserved(self, state: ParticleState) -> dict[str, float]:
        """Energy less heat, in units of kT a degree of freedom, and momentum where no noise acts, in thermal ones."""
        _, energy, _, pairs = self.evaluate(state.positions, state.box)
        kinetic = 0.5 * float((state.velocities**2).sum())
        unit = self.freedom * self.bath.kT
        found = {"effective_energy": (energy - self.shift * pairs + kinetic - state.heat) / unit}
        if self.bath.kind != LANGEVIN:
            for axis, value in zip("xyz", state.velocities.sum(dim=0).tolist(), strict=True):
                found[f"momentum_{axis}"] = value / math.sqrt(self.bath.kT)
        return found

    def symmetric(self, state: ParticleState, key: Key) -> Iterator[tuple[str, ParticleState]]:
        """A random image of `state` under each symmetry of the system."""
        generator = key.generator()
        by = torch.from_numpy(generator.uniform(0, 1, 3)) * state.box
        yield "translation", replace(state, positions=(state.positions + by) % state.box)
        order = torch.from_numpy(generator.permutation(self.system.atoms))
        yield "permutation", replace(state, positions=state.positions[order], velocities=state.velocities[order])
        axes = torch.from_numpy(generator.permutation(3))
        signs = torch.from_numpy(generator.choice([-1.0, 1.0], 3))
        box = state.box[axes]
        positions = (state.positions[:, axes] * signs) % box
        yield "cubic rotation", replace(state, positions=positions, velocities=state.velocities[:, axes] * signs, box=box)

    def _steps_a_call(self, wanted: int) -> int:
        """How many steps one compiled call takes; results do not depend on it."""
        pairs = self.system.atoms * (1 + 2 / 3 * math.pi * self.system.cutoff**3 * self.system.density)
        steps = int(CALL_SECONDS / (PAIR_SECONDS * pairs))
        if self.bath.kind == LANGEVIN:  # bounds the memory for the noise
            steps = min(steps, 1_000_000 // self.system.atoms)
        return min(max(FEWEST_STEPS, steps), wanted)

    def exploded(self, state: ParticleState, step: int, atom: int) -> ExplodedError:
        """The error that says so, with the sound state before it."""
        return ExplodedError(
            f"Step {step}: atom {atom} flies further than half a sigma in one time step, or has no finite position; the run has "
            f"exploded. Lower `time_step` (now {self.time_step:g}), or start without overlapping atoms "
            "(`manybody.engines.particles.relaxation.relax` parts them).",
            state,
        )

    def _call(
        self, state: ParticleState, atoms: Sorted | None, stride: int, rows: np.ndarray
    ) -> tuple[ParticleState, Sorted | None]:
        """One compiled call: ``len(rows) * stride`` steps, recorded into `rows` [samples, 8].

        `atoms` are those of `state` with their lists, as the call before left them; None to sort and list them anew.
        """
        self.refuse_narrow(state.box, state)
        steps = len(rows) * stride
        noise, chi2 = self.bath.noise(state.key, state.step, steps, self.system.atoms)
        positions, velocities, failed, atom, atoms = self._advance(state, atoms, noise, chi2, stride, rows)
        if atom >= 0:
            self._refuse_below_table(state, failed)
            raise self.exploded(state, state.step + failed, atom)
        rows[:, 4] += state.heat
        step, heat = state.step + steps, float(rows[-1, 4])
        return replace(state, positions=positions, velocities=velocities, step=step, heat=heat), atoms

    def _refuse_below_table(self, state: ParticleState, failed: int) -> None:
        """Raise `ExplodedError` where a table for a potential was left below its first distance, within `failed` + 1 steps."""
        if not isinstance(self.plain, PlainTable):
            return
        begins = math.sqrt(self.plain.pieces.low)
        for steps in range(failed, max(-1, failed - LOOK_BACK), -1):
            x, v, sound = state.positions, state.velocities, True
            if steps:
                noise, chi2 = self.bath.noise(state.key, state.step, steps, self.system.atoms)
                x, v, _, atom, _ = self._advance(state, None, noise, chi2, steps, np.empty((1, 8)))
                sound = atom < 0
            for ahead in (0.0, self.time_step) if sound else ():
                first, second, apart = closest_pair((x + ahead * v).cpu().numpy(), state.box.cpu().numpy())
                if apart < begins:
                    raise ExplodedError(
                        f"Step {state.step + steps + (ahead > 0)}: atoms {first} and {second} come as near as {apart:.4g}; the "
                        f"table of their potential begins at {begins:.4g}. Let it begin further in, lower `time_step` (now "
                        f"{self.time_step:g}), or start without overlapping atoms.",
                        state,
                    )

    def _advance(
        self, state: ParticleState, atoms: Sorted | None, noise: np.ndarray, chi2: np.ndarray, stride: int, rows: np.ndarray
    ) -> tuple[Tensor, Tensor, int, int, Sorted | None]:
        """Positions, velocities, the step and atom of an explosion, and the atoms with their lists.

        By the kernel on a CPU, else by its torch twin, which has no lists.
        """
        if self.device != "cpu":
            moved = plain_dynamics.advance(
                state.positions, state.velocities, lambda x: self.evaluate(x, state.box), self.bath, self.time_step,
                noise, chi2, stride, rows,
            )  # fmt: skip
            return *moved, None
        module, among = self.kernel.module, (self.system.cutoff, self._skins(state), self.kernel.values)
        box = state.box.numpy()
        if atoms is None:
            atoms = module.start(state.positions.numpy(), state.velocities.numpy(), box, *among, self.threads)
        bath = (self.bath.kind, self.bath.decay(self.time_step), self.bath.kT, float(self.bath.freedom))
        atoms, step, atom = module.advance(atoms, box, *among, self.time_step, *bath, noise, chi2, stride, rows, self.threads)
        positions, velocities = (torch.from_numpy(module.by_name(values, atoms.names)) for values in (atoms.x, atoms.v))
        return positions, velocities, step, atom, atoms

    def _skins(self, state: ParticleState) -> tuple[float, float]:
        """How much further than the cutoff the two lists reach."""
        room = float(state.box.min()) - self.system.cutoff  # a list reaches no further than the box
        skins = SKINS if self.system.atoms >= SMALL else (SMALL_SKIN, SMALL_SKIN)
        return min(skins[0], room), min(skins[1], 0.5 * room)

    def trace(self, rows: np.ndarray) -> Trace:
        """What rows [samples, 8] say: see `pair_template.advance`."""
        energy, virial, pairs, kinetic, heat = rows[:, :5].T.copy()
        return Trace(energy - self.shift * pairs, virial, pairs, kinetic, heat, rows[:, 5:].copy())


def kernels(system: PairFluid, precision: Precision = "double") -> tuple[PairKernel, PlainPairs | PlainTable]:
    """The compiled kernel of a fluid's potential, and its plain twin. Raises `InputError` for a table in mixed precision."""
    if not isinstance(system, SimpleFluid):
        unit = {"epsilon": 1.0, "sigma": 1.0}
        return LENNARD_JONES.bind(unit, precision), PlainPairs(LENNARD_JONES, unit)
    match system.potential:
        case TablePotential() as table:
            if precision != "double":
                raise InputError(Problem("precision", "`double` for a table", precision, "Give the potential as a formula."))
            pieces = table.pieces(system.cutoff)
            return table_kernel(pieces), PlainTable(pieces)
        case Formula(name=name, text=text, values=values):
            potential = PairPotential(name, text, tuple(values))
            return potential.bind(values, precision), PlainPairs(potential, values)


def closest_pair(positions: np.ndarray, box: np.ndarray) -> tuple[int, int, float]:
    """The two atoms of positions [atoms, 3] that are nearest to each other in a periodic box [3], and how far apart."""
    wrapped = positions % box
    wrapped = np.where(wrapped < box, wrapped, 0.0)  # a round-off below zero ends at the far face
    found = cKDTree(wrapped, boxsize=box).query(wrapped, k=2)
    apart, neighbour = np.asarray(found[0])[:, 1], np.asarray(found[1])[:, 1]
    one = int(np.argmin(apart))
    other = int(neighbour[one])
    return min(one, other), max(one, other), float(apart[one])


def in_calls(rows: np.ndarray, stride: int, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Calls of at most `longest` steps that fill rows [samples, ...], one every `stride` steps: steps a sample, and the samples.

    Where a stride is too long for one call, all but its last piece are recorded into rows that nobody keeps.
    """
    done = 0
    while done < len(rows):
        if stride > longest:
            for _ in range((stride - 1) // longest):
                yield longest, np.empty_like(rows[:1])
        block = rows[done : done + max(1, longest // stride)]
        yield (stride - 1) % longest + 1, block
        done += len(block)
