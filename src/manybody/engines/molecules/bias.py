"""Langevin dynamics of a molecule in vacuum with a bias along torsions: restraints, or the hills of metadynamics.

The bias is along collective variables (`numerics.collective`), its formulas are in `numerics.bias`, the steps in
`numerics.vacuum`. What is conserved is the energy with that of the bias, less the heat from the bath and the work that was
done by adding hills or moving restraints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from manybody.core.dynamics import Thermostat
from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.random import Key
from manybody.engines.molecules.engine import LONGEST_STEP, MoleculeEngine
from manybody.engines.molecules.sampling import Hills, Torsion, Unbiased, Window
from manybody.engines.molecules.spec import Molecule
from manybody.engines.molecules.state import MoleculeState
from manybody.engines.molecules.topology import Array, Topology
from manybody.numerics.bias import add_hill, empty_grid, node_count, offset, read_hills
from manybody.numerics.bonded import SIZES, Form
from manybody.numerics.collective import Collective
from manybody.numerics.periodic import wrap
from manybody.numerics.vacuum import EXPLODED, SOUND, TORN, Bias, Terms, add_bias, advance, evaluate

NOISE_STEPS = 500  # steps whose random numbers come from one key, and are drawn at once


@dataclass(frozen=True)
class BiasedState:
    """A molecule and its bias, which together determine their own future.

    work: done on the molecule by hills added since `init` and restraints moved, kJ/mol. centres: of the restraints,
    [torsions], radians, empty where there are none. hills: [hills, torsions + 1], centre and height of each, radians and
    kJ/mol. grid: their sum and its derivatives on nodes (`numerics.bias`), empty where there are no hills.
    """

    molecule: MoleculeState
    work: float
    centres: Tensor
    hills: Tensor
    grid: Tensor


@dataclass(frozen=True)
class BiasedTrace:
    """What a stretch recorded, each [samples], torsions [samples, torsions] in radians; kJ/mol.

    offset: c(t) of metadynamics, 0 elsewhere: exp((bias_energy - offset) / kT) weighs samples to the unbiased ensemble.
    """

    torsions: np.ndarray
    potential_energy: np.ndarray
    bias_energy: np.ndarray
    offset: np.ndarray
    kinetic_energy: np.ndarray
    heat: np.ndarray
    work: np.ndarray


class BiasedEngine:
    """Advances a molecule with a bias along torsions of four atoms each; passes `manybody.testing.engine`.

    friction_time: relaxation time of velocities, ps; None: no bath. time_step: ps. Compiled kernels run on one thread of a
    CPU. Raises `InputError` where a file is missing or differs, or a torsion names an atom that there is not.
    """

    def __init__(
        self,
        system: Molecule,
        torsions: Sequence[Torsion],
        bias: Unbiased | Hills | Window,
        time_step: float = 0.002,
        friction_time: float | None = 0.2,
    ) -> None:
        bath: Thermostat = "none" if friction_time is None else "langevin"
        self.plain = MoleculeEngine(system, time_step, bath, friction_time or 1.0)
        self.system, self.bias, self.time_step = system, bias, time_step
        self.variables = Collective.torsions(torsions)
        self.terms = molecule_terms(self.plain.topology)
        self.decay = 1.0 if friction_time is None else self.plain.bath.decay(time_step)
        atoms = self.plain.topology.atoms
        if self.variables.atoms.max() >= atoms:
            expected = f"atoms from 0 to {atoms - 1}"
            raise InputError(Problem("torsions", expected, f"{int(self.variables.atoms.max())}", "Count them from 0."))

    @cached_property
    def kT(self) -> float:
        """k_B T, kJ/mol."""
        return self.plain.bath.kT

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return self.plain.freedom

    def init(self, key: Key) -> BiasedState:
        """The molecule as its file has it, with Maxwell velocities, and a bias of nothing yet."""
        return self.begin(self.plain.init(key))

    def begin(self, molecule: MoleculeState) -> BiasedState:
        """A state of the molecule with a fresh bias: no hills, restraints about where it is."""
        nothing = torch.empty(0, dtype=torch.float64)
        hills = torch.empty((0, len(self.variables.variables) + 1), dtype=torch.float64)
        grid, centres = nothing, nothing
        if isinstance(self.bias, Hills):
            grid = torch.from_numpy(empty_grid(len(self.variables.variables), node_count(self.bias.width)))
        if isinstance(self.bias, Window):
            centres = torch.from_numpy(self.variables.look(molecule.positions.numpy())[0])
        return BiasedState(molecule, 0.0, centres, hills, grid)

    def step(self, state: BiasedState, steps: int = 1) -> BiasedState:
        """The state `steps` time steps later."""
        return self.record(state, steps, 1)[0]

    def pull(self, state: BiasedState, steps: int) -> BiasedState:
        """The state after the restraints moved to the centres of the window, the shorter way round, in `steps` steps."""
        assert isinstance(self.bias, Window)
        run = _Run(self, state)
        run.pace[:] = wrap(np.array(self.bias.centres) - run.bias.centres) / steps
        run.advance(steps)
        after = run.state()
        return replace(after, centres=torch.tensor(self.bias.centres, dtype=torch.float64))

    def record(self, state: BiasedState, stride: int, samples: int) -> tuple[BiasedState, BiasedTrace]:
        """Advance by ``samples * stride`` steps and record every `stride` of them; a hill is added after each `pace`.

        Raises `TaskError` with step, atom and remedy where the run explodes or a rigid bond cannot be kept.
        """
        run = _Run(self, state)
        torsions = len(self.variables.variables)
        rows = np.empty((samples, torsions + 6))
        every = max(1, round(self.bias.pace / self.time_step)) if isinstance(self.bias, Hills) else 0
        for row in rows:
            left = stride
            while left:
                steps = min(left, every - run.step % every) if every else left
                run.advance(steps)
                left -= steps
                if not left:  # a hill that is due now is not yet felt
                    row[:] = *run.values[:torsions], run.energy, run.biased, run.offset, run.kinetic, run.heat, run.work
                if every and run.step % every == 0:
                    run.add_hill()
        columns = rows[:, torsions:].T.copy()
        return run.state(), BiasedTrace(rows[:, :torsions].copy(), *columns)

    def observables(self, state: BiasedState) -> dict[str, float]:
        """Energy of the molecule and of its bias, temperature, and the torsions' cosines."""
        run = _Run(self, state)
        energy, biased = run.energies()
        told = {"potential_energy": energy, "bias_energy": biased}
        told["temperature"] = 2 * run.kinetic / self.freedom
        return told | {f"cosine_{n}": math.cos(run.values[n]) for n in range(len(self.variables.variables))}

    def conserved(self, state: BiasedState) -> dict[str, float]:
        """The energy with that of the bias, less heat and work, in kT per degree of freedom."""
        run = _Run(self, state)
        total = sum(run.energies()) + run.kinetic - run.heat - run.work
        return {"effective_energy": total / (self.freedom * self.kT)}

    def symmetric(self, state: BiasedState, key: Key) -> Iterator[tuple[str, BiasedState]]:
        """The state moved, and turned. A mirror image is another molecule: torsions change their sign."""
        generator, molecule = key.generator(), state.molecule
        shift = torch.from_numpy(generator.uniform(-1, 1, 3))
        yield "translation", replace(state, molecule=replace(molecule, positions=molecule.positions + shift))
        turn = np.linalg.qr(generator.standard_normal((3, 3)))[0]
        turn = torch.from_numpy(turn * np.linalg.det(turn))
        x, v = molecule.positions @ turn, molecule.velocities @ turn
        yield "rotation", replace(state, molecule=replace(molecule, positions=x, velocities=v))


class _Run:
    """A state being advanced: its arrays, changed in place."""

    def __init__(self, engine: BiasedEngine, state: BiasedState) -> None:
        self.engine, self.start = engine, state
        molecule, variables = state.molecule, engine.variables
        self.x, self.v = molecule.positions.numpy().copy(), molecule.velocities.numpy().copy()
        self.key, self.step, self.heat, self.work = molecule.key, molecule.step, molecule.heat, state.work
        self.values = np.zeros(max(2, len(variables.variables)))
        self.pace = np.zeros(len(state.centres))
        self.hills = [*state.hills.numpy()]
        stiffness = np.array(engine.bias.stiffness if isinstance(engine.bias, Window) else ())
        self.bias = Bias(
            variables.kinds, variables.atoms, variables.periodic, state.centres.numpy().copy(), stiffness, self.pace,
            state.grid.numpy().copy() if state.grid.numel() else np.empty((0, 0, 4)),
        )  # fmt: skip
        self.noise, self.chunk = np.empty(0), -1
        self.energy = self.biased = self.offset = 0.0
        self._find_offset()
        if not np.isfinite(self.x + self.v).all():
            self._refuse(EXPLODED, self.step)

    @property
    def kinetic(self) -> float:
        """The kinetic energy now, kJ/mol."""
        return 0.5 * float(self.engine.terms.masses @ (self.v**2).sum(axis=1))

    def advance(self, steps: int) -> None:
        """Advance by `steps`, in stretches whose random numbers come from one key."""
        engine, end = self.engine, self.step + steps
        while self.step < end:
            first = self.step % NOISE_STEPS
            noise = self._noise(self.step // NOISE_STEPS)[first : first + end - self.step]
            told, done, self.energy, self.biased, heat, work = advance(
                self.x, self.v, self.values, engine.terms, self.bias, noise,
                engine.time_step, engine.decay, engine.kT, LONGEST_STEP,
            )  # fmt: skip
            if told != SOUND:
                self._refuse(told, self.step + done)
            self.heat, self.work, self.step = self.heat + heat, self.work + work, self.step + len(noise)

    def add_hill(self) -> None:
        """Add a hill where the torsions are now; its height there is work."""
        spec, slope = self.engine.bias, np.empty(2)
        assert isinstance(spec, Hills)
        before = read_hills(self.bias.grid, self.values, slope)
        height = spec.height * math.exp(-before / (self.engine.kT * (spec.bias_factor - 1)))
        add_hill(self.bias.grid, self.values, height, spec.width)
        self.work += read_hills(self.bias.grid, self.values, slope) - before
        self.hills.append(np.array([*self.values[: len(self.engine.variables.variables)], height]))
        self._find_offset()

    def energies(self) -> tuple[float, float]:
        """Energy of the molecule and of the bias now; torsions go into `values`."""
        forces = np.empty_like(self.x)
        energy = float(evaluate(self.x, self.engine.terms, forces))
        return energy, float(add_bias(self.x, self.bias, self.values, forces))

    def state(self) -> BiasedState:
        """The state now."""
        start, x, v = self.start, torch.from_numpy(self.x), torch.from_numpy(self.v)
        molecule = replace(start.molecule, positions=x, velocities=v, step=self.step, heat=self.heat)
        hills = torch.from_numpy(np.array(self.hills).reshape(-1, start.hills.shape[1]))
        grid = torch.from_numpy(self.bias.grid) if self.bias.grid.size else start.grid
        return BiasedState(molecule, self.work, torch.from_numpy(self.bias.centres), hills, grid)

    def _find_offset(self) -> None:
        spec = self.engine.bias
        if isinstance(spec, Hills):
            self.offset = offset(self.bias.grid[..., 0], self.engine.kT, spec.bias_factor)

    def _noise(self, chunk: int) -> Array:
        """The random numbers of the steps of a chunk: a step has the same ones however a run is cut."""
        if chunk != self.chunk:
            shape = (NOISE_STEPS, *self.x.shape)
            bathed = self.engine.decay < 1
            generator = self.key.derive("heat bath", chunk).generator()
            self.noise, self.chunk = generator.standard_normal(shape) if bathed else np.empty(shape), chunk
        return self.noise

    def _refuse(self, told: int, step: int) -> None:
        """Say why the run stops, with the atom that is fastest or has no finite position."""
        topology, dt = self.engine.plain.topology, self.engine.time_step
        remedy = f"Lower `time_step` (now {1e3 * dt:g} fs), or start from coordinates without overlapping atoms."
        if told == TORN:
            raise TaskError(f"Step {step}: the rigid bonds cannot be satisfied. {remedy}")
        speed = np.nan_to_num((self.v**2).sum(axis=1) + 0 * self.x.sum(axis=1), nan=np.inf)
        atom = int(speed.argmax())
        name = f"{topology.names[atom]} of {topology.residues[atom]} {topology.residue[atom] + 1}"
        raise TaskError(
            f"Step {step}: atom {atom} ({name}) flies further than {LONGEST_STEP} nm in one time step, or has no finite "
            f"position or energy; the run has exploded. {remedy}"
        )


def molecule_terms(topology: Topology) -> Terms:
    """The arrays of a molecule in vacuum as `numerics.vacuum` takes them; raises `InputError` for a form it does not have."""
    known: tuple[Form, ...] = ("harmonic-bond", "harmonic-angle", "periodic-torsion")
    (bonds, stretching), (angles, bending), (torsions, turning) = (_merged(topology, form) for form in known)
    other = {terms.form for group in topology.bonded.values() for terms in group} - set(known)
    if other or len(topology.constraints.waters):
        came = ", ".join(sorted(other)) or "rigid water"
        raise InputError(Problem("force field", f"terms of {', '.join(known)}", came, "Take `force-field-dynamics`."))
    full, scaled = topology.interacting(), topology.pairs_14
    return Terms(
        masses=topology.masses,
        bonds=bonds,
        bond_parameters=stretching,
        angles=angles,
        angle_parameters=bending,
        torsions=torsions,
        torsion_parameters=turning,
        pairs=np.concatenate([full.atoms, scaled.atoms]),
        products=np.concatenate([full.products, scaled.products]),
        c12=np.concatenate([full.c12, scaled.c12]),
        c6=np.concatenate([full.c6, scaled.c6]),
        rigid=topology.constraints.bonds,
        lengths=topology.constraints.lengths,
    )


def _merged(topology: Topology, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Atoms and parameters of all terms of a form."""
    members, values = SIZES[form]
    found = [terms for group in topology.bonded.values() for terms in group if terms.form == form]
    atoms = np.concatenate([np.empty((0, members), np.int64), *[terms.atoms for terms in found]])
    return atoms, np.concatenate([np.empty((0, values)), *[terms.parameters for terms in found]])
