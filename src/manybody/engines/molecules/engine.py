"""Molecular dynamics of molecules with rigid bonds.

One step of length dt is B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2), with kicks B, drifts A and the heat bath O as in
`numerics.integrators`. Each A ends on the constraints, along the bonds at its start, and hands what that took to the
velocities; after each part, velocities are projected onto what the constraints allow. Without a bath both A are one, which
is velocity Verlet with RATTLE. Source: B. Leimkuhler and C. Matthews, Proc. R. Soc. A 472, 20160138 (2016), "g-BAOAB".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from manybody.core.dynamics import Thermostat
from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.molecules.barostat import Barostat, Place, first_width, in_box
from manybody.engines.molecules.force_fields import force_field_of
from manybody.engines.molecules.forces import Evaluation, NearLists
from manybody.engines.molecules.levels import Levels, together
from manybody.engines.molecules.spec import MolecularSystem, WaterBox
from manybody.engines.molecules.state import MoleculeState
from manybody.engines.molecules.topology import Array, Topology
from manybody.engines.molecules.water import water_lattice
from manybody.numerics.constraints import ConstraintError
from manybody.numerics.integrators import LANGEVIN, NO_BATH, RESCALING, HeatBath, rescaling_factor

LONGEST_STEP = 0.1  # nm that no atom of a sound run moves in one step
NOISE_STEPS = 64  # whose random numbers are drawn at once: bounds the memory


@dataclass(frozen=True)
class Trace:
    """What a stretch of dynamics recorded, each [samples]; momentum [samples, 3]. kJ/mol, nm, ps, u.

    virial and centre_kinetic_energy are of the molecules' centres of mass; volume is 0 in vacuum.
    """

    potential_energy: np.ndarray
    virial: np.ndarray
    kinetic_energy: np.ndarray
    centre_kinetic_energy: np.ndarray
    heat: np.ndarray
    volume: np.ndarray
    momentum: np.ndarray


class MoleculeEngine:
    """Advances molecules in a periodic box, or one in vacuum; passes `manybody.testing.engine`.

    thermostat: ``bussi`` (stochastic velocity rescaling), ``langevin`` or ``none``, with relaxation time
    `thermostat_time`, ps. time_step: ps. temperature: k_B T in kJ/mol, that of the system unless given. With a `barostat` the
    box changes, and the system's is the one it starts from. With several `short_steps` in a time step, slow forces act once
    in it and fast ones in each (`levels`). Compiled kernels run on one thread of a CPU. Raises
    `InputError` where a file is missing or differs from the one that was asked for.
    """

    def __init__(
        self,
        system: MolecularSystem,
        time_step: float = 0.001,
        thermostat: Thermostat = "none",
        thermostat_time: float = 0.5,
        temperature: float | None = None,
        barostat: Barostat | None = None,
        short_steps: int = 1,
    ) -> None:
        self.system, self.time_step, self.barostat, self.short_steps = system, time_step, barostat, short_steps
        self._levels: Levels | None = None  # of the force field they were last made for
        self.field, self.start = force_field_of(system)
        kind = {"none": NO_BATH, "bussi": RESCALING, "langevin": LANGEVIN}[thermostat]
        kept = 0 if thermostat == "langevin" else 3 if self.field.box is not None else 6
        freedom = 3 * self.topology.atoms - self.topology.constraints.count - kept
        self.bath = HeatBath(kind, system.temperature if temperature is None else temperature, thermostat_time, freedom)

    @property
    def topology(self) -> Topology:
        """Atoms and how they interact."""
        return self.field.topology

    @property
    def freedom(self) -> int:
        """Degrees of freedom: 3N, less the rigid bonds, the total momentum (and in vacuum the rotation) where conserved."""
        return int(self.bath.freedom)

    def init(self, key: Key) -> MoleculeState:
        """Water on a lattice, or molecules as their file has them; Maxwell velocities without total momentum or rotation."""
        topology = self.topology
        if self.start is None:
            assert isinstance(self.system, WaterBox)
            x = water_lattice(self.system.model, self.system.molecules, self.system.box, key.derive("lattice"))
        else:
            x = self.start.copy()
            topology.constraints.place(self.start, x)
        width = np.sqrt(self.bath.kT / topology.masses)[:, None]
        v = key.derive("velocities").generator().standard_normal(x.shape) * width
        topology.constraints.steer(x, v)
        v = self._at_rest(x, v)
        box = np.zeros(3) if self.field.box is None else self.field.box
        first = first_width(topology.molecules) if self.barostat else 0.0
        return MoleculeState(torch.from_numpy(x), torch.from_numpy(v), torch.from_numpy(box.copy()), key, width=first)

    def step(self, state: MoleculeState, steps: int = 1) -> MoleculeState:
        """The state `steps` time steps later."""
        return self.record(state, steps, 1)[0]

    def record(self, state: MoleculeState, stride: int, samples: int) -> tuple[MoleculeState, Trace]:
        """Advance by ``samples * stride`` steps and record every `stride` of them.

        Raises `TaskError` with step, atom and remedy where the run explodes or a rigid bond cannot be kept.
        """
        rows = np.empty((samples, 9))
        v, width = state.velocities.numpy().copy(), state.width
        self._refuse(~np.isfinite(state.positions.numpy() + v).all(axis=1), state.step)
        steps, heat = samples * stride, state.heat
        place = self._place(state)  # with fresh lists, so that the state alone determines every later bit
        for step in range(steps):
            if step % NOISE_STEPS == 0:
                wanted = min(NOISE_STEPS, steps - step)
                short = self.short_steps
                noise, chi2 = self.bath.noise(state.key, (state.step + step) * short, wanted * short, self.topology.atoms)
            try:
                place, gained = self._step(place, v, noise, chi2, step % NOISE_STEPS)
            except ConstraintError as error:
                raise TaskError(f"Step {state.step + step}: {error}. {self._remedy}") from error
            self._refuse_explosion(v, place.found, state.step + step)
            heat += gained
            done = state.step + step + 1
            if self.barostat and done % self.barostat.every == 0:
                before = place.found.energy
                place, width = self.barostat.move(self.field, place, width, state.key, done // self.barostat.every)
                heat += place.found.energy - before
            if (step + 1) % stride == 0:
                rows[step // stride, :6] = *self._look(place, v), heat, place.field.volume
                rows[step // stride, 6:] = self.topology.masses @ v
        after = replace(
            state, positions=torch.from_numpy(place.positions), velocities=torch.from_numpy(v), step=state.step + steps,
            box=torch.from_numpy(place.field.box.copy()) if place.field.box is not None else state.box, heat=heat, width=width,
        )  # fmt: skip
        energy, virials, kinetic, centres, heats, volumes = rows[:, :6].T.copy()
        return after, Trace(energy, virials, kinetic, centres, heats, volumes, rows[:, 6:].copy())

    def at_rest(self, state: MoleculeState) -> MoleculeState:
        """The state without total momentum, and in vacuum without total rotation, heated to the kinetic energy it had."""
        x, v = state.positions.numpy(), state.velocities.numpy()
        resting = self._at_rest(x, v)
        freedom = 3 * self.topology.atoms - self.topology.constraints.count
        lost = 3 if self.field.box is not None else 6
        resting *= math.sqrt(self._kinetic(v) / self._kinetic(resting) * (1 - lost / freedom))
        return replace(state, velocities=torch.from_numpy(resting))

    def observables(self, state: MoleculeState) -> dict[str, float]:
        """Potential energy a molecule, temperature, and in a box the pressure, kJ/(mol nm^3)."""
        place = self._place(state)
        energy, virial, kinetic, centres = self._look(place, state.velocities.numpy())
        told = {"potential_energy": energy / self.topology.molecules, "temperature": 2 * kinetic / self.freedom}
        if self.field.box is not None:
            told["pressure"] = (2 * centres + virial) / (3 * place.field.volume)
        return told

    def conserved(self, state: MoleculeState) -> dict[str, float]:
        """Energy less heat, in units of kT a degree of freedom, and momentum where no noise acts, in thermal ones of 1 u."""
        v = state.velocities.numpy()
        energy = self._place(state).found.energy + self._kinetic(v) - state.heat
        found = {"effective_energy": energy / (self.freedom * self.bath.kT)}
        if self.bath.kind != LANGEVIN:
            for axis, value in zip("xyz", self.topology.masses @ v, strict=True):
                found[f"momentum_{axis}"] = float(value) / math.sqrt(self.bath.kT)
        return found

    def symmetric(self, state: MoleculeState, key: Key) -> Iterator[tuple[str, MoleculeState]]:
        """A random image of `state` under each symmetry of the system."""
        generator = key.generator()
        yield "translation", replace(state, positions=state.positions + torch.from_numpy(generator.uniform(-1, 1, 3)))
        if self.field.box is None:
            turn = torch.from_numpy(np.linalg.qr(generator.standard_normal((3, 3)))[0])
            turn = turn * torch.linalg.det(turn).sign()  # no mirror: the energy of a torsion may depend on its sign
            yield "rotation", replace(state, positions=state.positions @ turn, velocities=state.velocities @ turn)
            return
        waters = self.topology.constraints.waters
        atoms = np.arange(self.topology.atoms)
        atoms[waters] = waters[generator.permutation(len(waters))]
        yield "permutation", replace(state, positions=state.positions[atoms], velocities=state.velocities[atoms])
        if not isinstance(self.system, WaterBox):
            return
        axes, signs = torch.from_numpy(generator.permutation(3)), torch.from_numpy(generator.choice([-1.0, 1.0], 3))
        turned = replace(state, positions=state.positions[:, axes] * signs, velocities=state.velocities[:, axes] * signs)
        yield "cubic rotation", turned

    # --- one step --------------------------------------------------------------------------------------------------

    def _step(self, place: Place, v: Array, noise: Array, chi2: Array, step: int) -> tuple[Place, float]:
        """Where the atoms are after a step, and the heat taken up in it; velocities change in place."""
        if self.short_steps == 1:
            x, near, found, gained = self._short_step(place, v, noise, chi2, step)
            return Place(place.field, x, near, found), gained
        if self._levels is None or self._levels.whole is not place.field:
            self._levels = Levels.of(place.field)
        levels, gained = self._levels, 0.0
        slow = place.slow or levels.slow(place.positions)
        self._kick(place.positions, v, slow.forces, self.time_step)
        rest = replace(place.found, forces=place.found.forces - slow.forces)
        inner = Place(levels.fast, place.positions, place.near, rest)
        for short in range(self.short_steps):
            x, near, found, heat = self._short_step(inner, v, noise, chi2, step * self.short_steps + short)
            inner, gained = Place(levels.fast, x, near, found), gained + heat
        slow = levels.slow(inner.positions)
        self._kick(inner.positions, v, slow.forces, self.time_step)
        return Place(place.field, inner.positions, inner.near, together(inner.found, slow), slow), gained

    def _short_step(
        self, place: Place, v: Array, noise: Array, chi2: Array, step: int
    ) -> tuple[Array, NearLists | None, Evaluation, float]:
        """Positions, lists, what acts there, and the heat taken up in a step with all forces of a place's force field."""
        dt, gained, x = self.time_step / self.short_steps, 0.0, place.positions
        self._kick(x, v, place.found.forces, dt)
        if self.bath.kind == NO_BATH:
            x = self._drift(x, v, dt)
        else:
            x = self._drift(x, v, 0.5 * dt)
            gained = self._exchange_heat(x, v, noise, chi2, step, dt)
            x = self._drift(x, v, 0.5 * dt)
        near = place.field.lists(x, place.near)
        found = place.field.evaluate(x, near)
        self._kick(x, v, found.forces, dt)
        return x, near, found, gained

    def _place(self, state: MoleculeState) -> Place:
        """Where the atoms of a state are, in the state's own box."""
        field, x = in_box(self.field, state.box.numpy()), state.positions.numpy().copy()
        near = field.lists(x)
        return Place(field, x, near, field.evaluate(x, near))

    def _look(self, place: Place, v: Array) -> tuple[float, float, float, float]:
        """Potential energy, virial, kinetic energy, and that of the centres of mass."""
        virial = place.field.molecular_virial(place.positions, place.found)
        return place.found.energy, virial, self._kinetic(v), self._centre_kinetic(v)

    def _kick(self, x: Array, v: Array, forces: Array, dt: float) -> None:
        """B(dt/2), in place."""
        v += (0.5 * dt) * forces / self.topology.masses[:, None]
        self.topology.constraints.steer(x, v)

    def _drift(self, x: Array, v: Array, time: float) -> Array:
        """A(time): the new positions; velocities change in place by what the constraints took."""
        free = x + time * v
        if not self.topology.constraints.count:
            return free
        moved = free.copy()
        self.topology.constraints.place(x, moved)
        v += (moved - free) / time
        self.topology.constraints.steer(moved, v)
        return moved

    def _exchange_heat(self, x: Array, v: Array, noise: Array, chi2: Array, step: int, dt: float) -> float:
        """O(dt), in place; returns the heat taken up."""
        before, bath = self._kinetic(v), self.bath
        decay = bath.decay(dt)
        if bath.kind == RESCALING:
            v *= rescaling_factor(before, bath.freedom, bath.kT, decay, noise[step, 0, 0], chi2[step])
            return self._kinetic(v) - before
        v *= decay
        v += np.sqrt((1 - decay**2) * bath.kT / self.topology.masses)[:, None] * noise[step]
        self.topology.constraints.steer(x, v)
        return self._kinetic(v) - before

    def _kinetic(self, v: Array) -> float:
        return 0.5 * float(self.topology.masses @ (v**2).sum(axis=1))

    def _centre_kinetic(self, v: Array) -> float:
        """The kinetic energy of the centres of mass."""
        weights = np.bincount(self.topology.molecule, self.topology.masses)
        return 0.5 * float(weights @ (self.field.centres(v) ** 2).sum(axis=1))

    def _at_rest(self, x: Array, v: Array) -> Array:
        """Velocities without total momentum, and in vacuum without total rotation."""
        masses = self.topology.masses
        v = v - masses @ v / masses.sum()
        if self.field.box is not None:
            return v
        apart = x - masses @ x / masses.sum()
        inertia = np.einsum("i,ij,ik->jk", masses, apart, apart)
        inertia = np.trace(inertia) * np.eye(3) - inertia
        spin = np.linalg.lstsq(inertia, masses @ np.cross(apart, v), rcond=None)[0]  # a line has no spin about itself
        return np.asarray(v - np.cross(spin, apart))

    @property
    def _remedy(self) -> str:
        return f"Lower `time_step` (now {1e3 * self.time_step:g} fs), or start from coordinates without overlapping atoms."

    def _refuse_explosion(self, v: Array, found: Evaluation, step: int) -> None:
        fast = (v**2).sum(axis=1) * self.time_step**2
        if not fast.max() < LONGEST_STEP**2 or not math.isfinite(found.energy):
            self._refuse(~(fast < LONGEST_STEP**2) | ~np.isfinite(found.forces).all(axis=1), step)

    def _refuse(self, bad: NDArray[np.bool_], step: int) -> None:
        """Stop the run if any atom is bad."""
        if not bad.any():
            return
        atom = int(np.flatnonzero(bad)[0])
        name = f"{self.topology.names[atom]} of {self.topology.residues[atom]} {self.topology.residue[atom] + 1}"
        raise TaskError(
            f"Step {step}: atom {atom} ({name}) flies further than {LONGEST_STEP} nm in one time step, or has no finite "
            f"position or force; the run has exploded. {self._remedy}"
        )
