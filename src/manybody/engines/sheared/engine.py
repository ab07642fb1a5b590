"""Molecular dynamics of mixtures in a sheared periodic cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.sheared.spec import LennardJonesMixture, ShearThermostat
from manybody.engines.sheared.state import MixtureState
from manybody.numerics import jit
from manybody.numerics.mixture_template import SAMPLE
from manybody.numerics.mixtures import MixtureKernel, MixturePotential, mixed
from manybody.numerics.pairs import LENNARD_JONES

SKINS = (0.8, 0.35)  # how much further than the cutoff the lists of clusters and of atoms reach: speed, not physics
PAIR_SECONDS = 2e-9  # a pair within the cutoff and step, about: it only sets how long a compiled call lasts
CALL_SECONDS = 0.04  # so that Ctrl-C is answered at once
FEWEST_STEPS = 16  # a call begins with a list; below this it would be most of the work


@dataclass(frozen=True)
class Trace:
    """What a stretch of dynamics recorded, each [samples].

    virial and kinetic: [samples, 6], sums of r f over pairs and of v v over atoms, xx yy zz xy xz yz. heat and work: taken
    up since the start of the state. momentum: [samples, 3].
    """

    potential_energy: np.ndarray
    pairs: np.ndarray
    virial: np.ndarray
    kinetic: np.ndarray
    heat: np.ndarray
    work: np.ndarray
    momentum: np.ndarray

    @property
    def kinetic_energy(self) -> np.ndarray:
        """Half the sum of squared velocities, relative to the flow."""
        return np.asarray(0.5 * self.kinetic[:, :3].sum(axis=1))


def mixture_kernel(system: LennardJonesMixture, threaded: bool = False) -> MixtureKernel:
    """The compiled forces of a system."""
    sigma, epsilon = np.array(system.sigma), np.array(system.epsilon)
    if system.mixing != "table":
        sigma, epsilon = mixed(system.mixing, sigma[0], epsilon[0])
    potential = MixturePotential(LENNARD_JONES, len(system.fractions), system.treatment, threaded)
    begins = system.switch * sigma if system.treatment == "switched" else None
    return potential.bind({"epsilon": epsilon, "sigma": sigma}, system.cutoff * sigma, begins)


class ShearedEngine:
    """Advances a mixture under homogeneous shear; passes `manybody.testing.engine`.

    The kinetic energy is held at (3N - 4) kT / 2, which makes configurations at rest canonical at T, or it is left alone.
    Compiled kernels run on `threads` threads, with the same bits for any number of them.
    """

    def __init__(
        self,
        system: LennardJonesMixture,
        time_step: float = 0.005,
        shear_rate: float = 0.0,
        thermostat: ShearThermostat = "isokinetic",
        temperature: float | None = None,
        threads: int = 1,
    ) -> None:
        self.system, self.time_step, self.shear_rate = system, time_step, shear_rate
        self.is_isokinetic = thermostat == "isokinetic"
        self.temperature = system.temperature if temperature is None else temperature
        self.threads = min(threads, jit.most_threads())
        self.kernel = mixture_kernel(system, self.threads > 1)
        self.freedom = 3 * system.atoms - (4 if self.is_isokinetic else 3)

    def init(self, key: Key) -> MixtureState:
        """A face-centred cubic lattice (with vacancies where it does not fit), species at random, at the temperature."""
        atoms, edge = self.system.atoms, self.system.box
        generator = key.derive("start").generator()
        cells = math.ceil((atoms / 4) ** (1 / 3) - 1e-9)
        corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
        basis = np.array([[0.25, 0.25, 0.25], [0.75, 0.75, 0.25], [0.75, 0.25, 0.75], [0.25, 0.75, 0.75]])
        sites = (corner + basis).reshape(-1, 3) * (edge / cells)
        positions = sites[np.sort(generator.permutation(len(sites))[:atoms])]
        species = generator.permutation(np.repeat(np.arange(len(self.system.counts)), self.system.counts))
        velocities = generator.standard_normal((atoms, 3))
        return self.tempered(MixtureState(positions, velocities, species, np.diag(np.full(3, edge)), key))

    def tempered(self, state: MixtureState) -> MixtureState:
        """The same configuration with its velocities scaled to the temperature, without momentum; accounts start anew."""
        velocities = state.velocities - state.velocities.mean(axis=0)
        velocities *= math.sqrt(self.freedom * self.temperature / float((velocities**2).sum()))
        return replace(state, velocities=velocities, heat=0.0, work=0.0)

    def step(self, state: MixtureState, steps: int = 1) -> MixtureState:
        """The state `steps` time steps later."""
        return self.record(state, steps, 1)[0]

    def record(self, state: MixtureState, stride: int, samples: int) -> tuple[MixtureState, Trace]:
        """Advance by ``samples * stride`` steps and record every `stride` of them. Raises `TaskError` where the run explodes."""
        rows, done = np.empty((samples, SAMPLE)), 0
        longest = self._steps_a_call(stride * samples)
        while done < samples:
            if stride > longest:  # too long for one call: all but the last piece go unrecorded
                for _ in range((stride - 1) // longest):
                    state = self._call(state, longest, np.empty((1, SAMPLE)))
                block = rows[done : done + 1]
                state = self._call(state, (stride - 1) % longest + 1, block)
            else:
                block = rows[done : done + longest // stride]
                state = self._call(state, stride, block)
            done += len(block)
        return state, _trace(rows)

    def observables(self, state: MixtureState) -> dict[str, float]:
        """Potential energy a particle, pressure, shear stress, and kinetic temperature."""
        found = self.kernel.evaluate(state.positions, state.species, state.cell, self.threads)
        kinetic = state.velocities.T @ state.velocities
        volume = float(np.linalg.det(state.cell))
        return {
            "potential_energy": found.energy / self.system.atoms,
            "pressure": float(np.trace(kinetic + found.virial)) / (3 * volume),
            "shear_stress": -float(kinetic[0, 1] + found.virial[0, 1]) / volume,
            "temperature": float(np.trace(kinetic)) / self.freedom,
        }

    def conserved(self, state: MixtureState) -> dict[str, float]:
        """Energy less work and heat, in units of kT a degree of freedom, and momentum in thermal ones."""
        found = self.kernel.evaluate(state.positions, state.species, state.cell, self.threads)
        kinetic = 0.5 * float((state.velocities**2).sum())
        kept = {"balance": (found.energy + kinetic - state.heat - state.work) / (self.freedom * self.temperature)}
        for axis, value in zip("xyz", state.velocities.sum(axis=0).tolist(), strict=True):
            kept[f"momentum_{axis}"] = value / math.sqrt(self.temperature)
        return kept

    def symmetric(self, state: MixtureState, key: Key) -> Iterator[tuple[str, MixtureState]]:
        """A random image of `state` under each symmetry of the system in its flow."""
        generator = key.generator()
        yield "translation", replace(state, positions=state.positions + generator.uniform(0, self.system.box, 3))
        order = generator.permutation(self.system.atoms)
        shuffled = {name: getattr(state, name)[order] for name in ("positions", "velocities", "species")}
        yield "permutation", replace(state, **shuffled)
        for name, signs in (("half turn about z", [-1.0, -1.0, 1.0]), ("reflection in z", [1.0, 1.0, -1.0])):
            yield name, replace(state, positions=state.positions * signs, velocities=state.velocities * signs)

    def _steps_a_call(self, wanted: int) -> int:
        """How many steps one compiled call takes; a matter of the system alone, so that results repeat bit for bit."""
        pairs = self.system.atoms * (1 + 2 / 3 * math.pi * self.kernel.longest**3 * self.system.density)
        return min(max(FEWEST_STEPS, int(CALL_SECONDS / (PAIR_SECONDS * pairs))), wanted)

    def _call(self, state: MixtureState, stride: int, rows: np.ndarray) -> MixtureState:
        """One compiled call: ``len(rows) * stride`` steps, recorded into rows [samples, SAMPLE]."""
        kernel = self.kernel
        positions, velocities, _, cell, failed, atom = kernel.module.advance(
            state.positions, state.velocities, state.species, state.cell, kernel.parameters, kernel.cutoffs, kernel.begins, SKINS,
            self.time_step, self.shear_rate, self.is_isokinetic, stride, rows, self.threads,
        )  # fmt: skip
        if atom >= 0:
            raise TaskError(
                f"Step {state.step + failed}: atom {atom} flies further than half a unit of length in one time step, or has no "
                f"finite position; the run has exploded. Lower `time_step` (now {self.time_step:g}), or start without "
                "overlapping atoms."
            )
        rows[:, 14] += state.heat
        rows[:, 15] += state.work
        return replace(
            state, positions=positions, velocities=velocities, cell=cell, step=state.step + len(rows) * stride,
            heat=float(rows[-1, 14]), work=float(rows[-1, 15]),
        )  # fmt: skip


def _trace(rows: np.ndarray) -> Trace:
    energy, pairs = rows[:, :2].T.copy()
    heat, work = rows[:, 14:16].T.copy()
    return Trace(energy, pairs, rows[:, 2:8].copy(), rows[:, 8:14].copy(), heat, work, rows[:, 16:].copy())
