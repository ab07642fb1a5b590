"""Dynamics of atoms on the forces of any energy model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols

from manybody.core.dynamics import Thermostat
from manybody.core.energies import EnergyError, Evaluated, ForceProvider
from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.atoms.overlaps import refuse_overlaps
from manybody.engines.atoms.spec import FEMTOSECOND, AtomsSystem, Crystal
from manybody.engines.atoms.state import AtomsState
from manybody.numerics.integrators import LANGEVIN, NO_BATH, RESCALING, HeatBath, rescaling_factor

LONGEST_STEP = 0.5  # angstroms that no atom of a sound run moves in one step
NOISE_STEPS = 64  # whose random numbers are drawn at once: bounds the memory


class StoppedRun(TaskError):
    """A run that cannot go on; `state` is the last one that was sound."""

    def __init__(self, message: str, state: AtomsState) -> None:
        self.state = state
        super().__init__(message)


@dataclass(frozen=True)
class Trace:
    """What a stretch of dynamics recorded, each [samples]; momentum [samples, 3]. eV, angstroms, u.

    virial: of the forces, -tr(stress) times the volume; 0 where the model has no stress or the cell is not periodic.
    """

    potential_energy: np.ndarray
    virial: np.ndarray
    kinetic_energy: np.ndarray
    heat: np.ndarray
    momentum: np.ndarray


class AtomsEngine:
    """Advances a crystal or a structure; passes `manybody.testing.engine`.

    thermostat: ``bussi`` (stochastic velocity rescaling), ``langevin`` or ``none``, with relaxation time
    `thermostat_time`. temperature: k_B T in eV, that of the system unless given. provider: gives the forces, the system's
    own energy model unless given. Raises `InputError` where the model or a file cannot be had.
    """

    def __init__(
        self,
        system: AtomsSystem,
        time_step: float = 2 * FEMTOSECOND,
        thermostat: Thermostat = "none",
        thermostat_time: float = 100 * FEMTOSECOND,
        temperature: float | None = None,
        provider: ForceProvider | None = None,
    ) -> None:
        self.system, self.time_step = system, time_step
        atoms = system.atoms()
        self.start, self.cell = np.array(atoms.positions), np.array(atoms.cell)
        self.numbers, self.pbc = np.array(atoms.numbers), np.array(atoms.pbc)
        self.masses = np.array(atoms.get_masses())
        self.provider = system.energy.load() if provider is None else provider
        kind = {"none": NO_BATH, "bussi": RESCALING, "langevin": LANGEVIN}[thermostat]
        freedom = 3 * len(atoms) - (0 if thermostat == "langevin" else self.kept)
        self.bath = HeatBath(kind, system.temperature if temperature is None else temperature, thermostat_time, freedom)

    @property
    def kept(self) -> int:
        """Motions that the forces keep: of the centre of mass, and where nothing is periodic the rotation."""
        if self.pbc.any() or len(self.numbers) == 1:
            return 3
        return 5 if len(self.numbers) == 2 else 6

    @property
    def freedom(self) -> int:
        """Degrees of freedom: 3N, less the motions that are kept where no noise acts."""
        return int(self.bath.freedom)

    def init(self, key: Key) -> AtomsState:
        """The atoms of the system, with Maxwell velocities without total momentum (and rotation, in vacuum)."""
        refuse_overlaps(self.start, self.numbers, self.cell, self.pbc)
        width = np.sqrt(self.bath.kT / self.masses)[:, None]
        v = self._at_rest(self.start, key.derive("velocities").generator().standard_normal(self.start.shape) * width, self.masses)
        return AtomsState(self.start.copy(), v, self.cell.copy(), np.arange(len(v)), key)

    def step(self, state: AtomsState, steps: int = 1) -> AtomsState:
        """The state `steps` time steps later."""
        return self.record(state, steps, 1)[0]

    def record(self, state: AtomsState, stride: int, samples: int) -> tuple[AtomsState, Trace]:
        """Advance by ``samples * stride`` steps and record every `stride` of them.

        Raises `StoppedRun` with atom, step and remedy where the run explodes, atoms overlap or the model fails.
        """
        rows = np.empty((samples, 7))
        masses, numbers = self.masses[state.order], self.numbers[state.order]
        self._refuse(~np.isfinite(state.positions + state.velocities).all(axis=1), "is at no finite position", state)
        self.provider.forget()  # so that the state alone determines every later bit
        found = self._evaluate(state, numbers)
        noise, chi2 = np.empty((0, 1, 1)), np.empty(0)
        for step in range(samples * stride):
            if step % NOISE_STEPS == 0:
                wanted = min(NOISE_STEPS, samples * stride - step)
                noise, chi2 = self.bath.noise(state.key, state.step, wanted, len(masses))
            row = step % NOISE_STEPS
            state, found = self._step(state, found, masses, numbers, noise[row : row + 1], chi2[row : row + 1])
            if (step + 1) % stride == 0:
                v = state.velocities
                rows[step // stride, :4] = found.energy, self._virial(found), self._kinetic(v, masses), state.heat
                rows[step // stride, 4:] = masses @ v
        energy, virial, kinetic, heat = rows[:, :4].T.copy()
        return state, Trace(energy, virial, kinetic, heat, rows[:, 4:].copy())

    def at_rest(self, state: AtomsState) -> AtomsState:
        """The state without the motions that forces keep, heated to the kinetic energy it had a degree of freedom."""
        masses = self.masses[state.order]
        resting = self._at_rest(state.positions, state.velocities, masses)
        before, after = self._kinetic(state.velocities, masses), self._kinetic(resting, masses)
        return replace(state, velocities=resting * math.sqrt(before / after * (1 - self.kept / (3 * len(masses)))))

    def observables(self, state: AtomsState) -> dict[str, float]:
        """Potential energy an atom, temperature, and where there is a stress the pressure, eV/angstrom^3."""
        masses, numbers = self.masses[state.order], self.numbers[state.order]
        self.provider.forget()
        found = self._evaluate(state, numbers)
        kinetic = self._kinetic(state.velocities, masses)
        told = {"potential_energy": found.energy / len(masses), "temperature": 2 * kinetic / self.freedom}
        if found.stress is not None:
            told["pressure"] = (2 * kinetic + self._virial(found)) / (3 * self.volume)
        return told

    @property
    def volume(self) -> float:
        """Volume of the cell, angstrom^3."""
        return abs(float(np.linalg.det(self.cell)))

    def conserved(self, state: AtomsState) -> dict[str, float]:
        """Energy less heat, in units of kT a degree of freedom, and momentum where no noise acts, in thermal ones of 1 u."""
        masses = self.masses[state.order]
        self.provider.forget()
        energy = self._evaluate(state, self.numbers[state.order]).energy + self._kinetic(state.velocities, masses) - state.heat
        found = {"effective_energy": energy / (self.freedom * self.bath.kT)}
        if self.bath.kind != LANGEVIN:
            for axis, value in zip("xyz", masses @ state.velocities, strict=True):
                found[f"momentum_{axis}"] = float(value) / math.sqrt(self.bath.kT)
        return found

    def symmetric(self, state: AtomsState, key: Key) -> Iterator[tuple[str, AtomsState]]:
        """A random image of `state` under each symmetry of the system."""
        generator = key.generator()
        yield "translation", replace(state, positions=state.positions + generator.uniform(-1, 1, 3))
        new = generator.permutation(len(state.order))
        moved = {name: getattr(state, name)[new] for name in ("positions", "velocities", "order")}
        yield "permutation", replace(state, **moved)
        if isinstance(self.system, Crystal) and len(set(self.system.repeat)) == 1:
            axes, signs = generator.permutation(3), generator.choice([-1.0, 1.0], 3)
            turned = {name: getattr(state, name)[:, axes] * signs for name in ("positions", "velocities")}
            yield "cubic rotation", replace(state, **turned)

    # --- one step --------------------------------------------------------------------------------------------------

    def _step(
        self, state: AtomsState, found: Evaluated, masses: np.ndarray, numbers: np.ndarray, noise: np.ndarray, chi2: np.ndarray
    ) -> tuple[AtomsState, Evaluated]:
        """B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2): the next state, and what the model says of it."""
        dt, per_mass = self.time_step, 1.0 / masses[:, None]
        v = state.velocities + 0.5 * dt * found.forces * per_mass
        x = state.positions + 0.5 * dt * v
        v, gained = self._exchange_heat(v, masses, noise, chi2)
        x = x + 0.5 * dt * v
        self._refuse(
            ~((v**2).sum(axis=1) * dt**2 < LONGEST_STEP**2),
            f"flies further than {LONGEST_STEP} angstroms in one time step",
            state,
        )
        moved = replace(state, positions=x, velocities=v, step=state.step + 1, heat=state.heat + gained)
        after = self._evaluate(moved, numbers, sound=state)
        return replace(moved, velocities=v + 0.5 * dt * after.forces * per_mass), after

    def _exchange_heat(self, v: np.ndarray, masses: np.ndarray, noise: np.ndarray, chi2: np.ndarray) -> tuple[np.ndarray, float]:
        """O(dt): the new velocities and the heat taken up."""
        bath = self.bath
        if bath.kind == NO_BATH:
            return v, 0.0
        before, decay = self._kinetic(v, masses), bath.decay(self.time_step)
        if bath.kind == RESCALING:
            v = v * rescaling_factor(before, bath.freedom, bath.kT, decay, noise[0, 0, 0], chi2[0])
        else:
            v = decay * v + np.sqrt((1 - decay**2) * bath.kT / masses)[:, None] * noise[0]
        return v, self._kinetic(v, masses) - before

    def _evaluate(self, state: AtomsState, numbers: np.ndarray, sound: AtomsState | None = None) -> Evaluated:
        """What the model says of a state; `sound` is the one to keep where it says nothing good."""
        kept = state if sound is None else sound
        try:
            found = self.provider(state.positions, numbers, state.cell, self.pbc)
        except EnergyError as error:
            where = "" if error.atom is None else f"atom {self._named(kept, error.atom)}: "
            raise StoppedRun(f"Step {state.step}: {where}{error}. {self._remedy}", kept) from error
        self._refuse(~np.isfinite(found.forces).all(axis=1), "has no finite force from the model", kept, state.step)
        if not math.isfinite(found.energy):
            raise StoppedRun(f"Step {state.step}: the model gives an energy that is not finite. {self._remedy}", kept)
        return found

    def _refuse(self, bad: np.ndarray, what: str, sound: AtomsState, step: int | None = None) -> None:
        """Stop the run if any atom is bad."""
        if bad.any():
            atom = int(np.flatnonzero(bad)[0])
            told = f"Step {sound.step if step is None else step}: atom {self._named(sound, atom)} {what}; the run cannot go on."
            raise StoppedRun(f"{told} {self._remedy}", sound)

    def _named(self, state: AtomsState, atom: int) -> str:
        number = int(self.numbers[state.order[atom]])
        return f"{int(state.order[atom])} ({chemical_symbols[number]})"

    @property
    def _remedy(self) -> str:
        step = self.time_step / FEMTOSECOND
        return (
            f"Lower `time_step` (now {step:g} fs), start from atoms that do not overlap, or choose an energy model that knows "
            "these elements and distances."
        )

    def _virial(self, found: Evaluated) -> float:
        return 0.0 if found.stress is None else -float(np.trace(found.stress)) * self.volume

    def _kinetic(self, v: np.ndarray, masses: np.ndarray) -> float:
        return 0.5 * float(masses @ (v**2).sum(axis=1))

    def _at_rest(self, x: np.ndarray, v: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """Velocities without total momentum, and where nothing is periodic without total rotation."""
        v = v - masses @ v / masses.sum()
        if self.pbc.any():
            return np.asarray(v)
        apart = x - masses @ x / masses.sum()
        inertia = np.einsum("i,ij,ik->jk", masses, apart, apart)
        inertia = np.trace(inertia) * np.eye(3) - inertia
        spin = np.linalg.lstsq(inertia, masses @ np.cross(apart, v), rcond=None)[0]  # a line has no spin about itself
        return np.asarray(v - np.cross(spin, apart))
