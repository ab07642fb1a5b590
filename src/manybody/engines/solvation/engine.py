"""Molecular dynamics of a solute that is coupled to its liquid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.solvation.spec import LennardJonesSolvation
from manybody.engines.solvation.state import SolvationState
from manybody.numerics import jit
from manybody.numerics.alchemy import CoupledPairs
from manybody.numerics.mixture_template import SAMPLE
from manybody.numerics.mixtures import MixtureKernel, MixturePotential
from manybody.numerics.potentials import SOFT_CORE, coupling_slope

SKINS = (0.8, 0.35)  # how much further than the cutoff the lists of clusters and of atoms reach: speed, not physics
CALL_STEPS = 200  # of one compiled call at most, some tens of ms: so that Ctrl-C is answered at once
SOLVENT, SOLUTE = 0, 1  # the species of the compiled mixture


@dataclass(frozen=True)
class Trace:
    """What a stretch of dynamics recorded, each [samples].

    heat: taken up since the start of the state. momentum [samples, 3]. slopes: dU/dl. energies [samples, couplings]: of the
    solute at each coupling. neighbours: solvent within the cutoff of the solute. insertions: mean Boltzmann factors of
    particles inserted at random, [samples] or [0].
    """

    potential_energy: np.ndarray
    kinetic_energy: np.ndarray
    heat: np.ndarray
    momentum: np.ndarray
    slopes: np.ndarray
    energies: np.ndarray
    neighbours: np.ndarray
    insertions: np.ndarray

    @classmethod
    def joined(cls, traces: Sequence[Trace]) -> Trace:
        """Several stretches as one."""
        return cls(**{field.name: np.concatenate([getattr(trace, field.name) for trace in traces]) for field in fields(cls)})


def mixture_kernel(system: LennardJonesSolvation, coupling: float, alpha: float, threaded: bool = False) -> MixtureKernel:
    """The compiled forces at a coupling: solvents are Lennard-Jones, which the soft core is at coupling 1."""

    def table(solvent: float, solute: float) -> np.ndarray:
        return np.array([[solvent, solute], [solute, solvent]])

    values = {
        "epsilon": table(1.0, system.pair_epsilon),
        "sigma": table(1.0, system.pair_sigma),
        "alpha": table(alpha, alpha),
        "coupling": table(1.0, coupling),
    }
    return MixturePotential(SOFT_CORE, 2, "shifted", threaded).bind(values, system.cutoff)


def solute_pairs(system: LennardJonesSolvation, alpha: float) -> CoupledPairs:
    """The coupled term: all pairs of the solute with the solvent."""
    values = {"epsilon": system.pair_epsilon, "sigma": system.pair_sigma, "alpha": alpha}
    return CoupledPairs(
        SOFT_CORE, {**values, "coupling": 0.0}, {**values, "coupling": 1.0},
        np.array([0]), np.arange(1, 1 + system.atoms), np.full(3, system.box), system.cutoff,
    )  # fmt: skip


class SolvationEngine:
    """Advances a solute in its liquid at one coupling; passes `manybody.testing.engine`.

    The kinetic energy is held at (3 (N + 1) - 4) kT / 2, which makes configurations canonical at T. Compiled kernels run on
    `threads` threads, with the same bits for any number of them.
    """

    def __init__(
        self,
        system: LennardJonesSolvation,
        coupling: float = 1.0,
        alpha: float = 0.5,
        time_step: float = 0.005,
        temperature: float | None = None,
        threads: int = 1,
    ) -> None:
        self.system, self.coupling, self.alpha, self.time_step = system, coupling, alpha, time_step
        self.temperature = system.temperature if temperature is None else temperature
        self.threads = min(threads, jit.most_threads())
        self.kernel = mixture_kernel(system, coupling, alpha, self.threads > 1)
        self.solute = solute_pairs(system, alpha)
        self.freedom = 3 * (1 + system.atoms) - 4
        self.cell = np.diag(np.full(3, system.box))
        self.species = np.full(1 + system.atoms, SOLVENT, dtype=np.int64)
        self.species[0] = SOLUTE

    def init(self, key: Key) -> SolvationState:
        """A face-centred cubic lattice with vacancies where it does not fit, the solute on one of its sites."""
        count, edge = 1 + self.system.atoms, self.system.box
        cells = math.ceil((count / 4) ** (1 / 3) - 1e-9)
        corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
        basis = np.array([[0.25, 0.25, 0.25], [0.75, 0.75, 0.25], [0.75, 0.25, 0.75], [0.25, 0.75, 0.75]])
        sites = (corner + basis).reshape(-1, 3) * (edge / cells)
        places = sites[key.derive("start").generator().permutation(len(sites))[:count]]
        return self.renewed(SolvationState(places, np.empty_like(places), key))

    def renewed(self, state: SolvationState) -> SolvationState:
        """The same configuration with new velocities, drawn from those of its kinetic energy and no momentum.

        So a solute that nothing touches still finds its way, and every window forgets what the one before it had.
        """
        velocities = state.key.derive("velocities", state.step).generator().standard_normal(state.positions.shape)
        velocities -= velocities.mean(axis=0)
        velocities *= math.sqrt(self.freedom * self.temperature / float((velocities**2).sum()))
        return replace(state, velocities=velocities)

    def step(self, state: SolvationState, steps: int = 1) -> SolvationState:
        """The state `steps` time steps later."""
        return self._advance(state, steps)[0]

    def record(
        self, state: SolvationState, stride: int, samples: int, couplings: Sequence[float], insertions: int = 0
    ) -> tuple[SolvationState, Trace]:
        """Advance by ``samples * stride`` steps and record every `stride` of them. Raises `TaskError` where the run explodes."""
        rows, found, inserted = np.empty((samples, SAMPLE)), [], []
        for sample in range(samples):
            state, rows[sample] = self._advance(state, stride)
            found.append(self._look(state, couplings))
            if insertions:
                inserted.append(self.insertion(state, insertions))
        slopes, energies, neighbours = (np.array(column) for column in zip(*found, strict=True))
        kinetic = 0.5 * rows[:, 8:11].sum(axis=1)
        return state, Trace(
            rows[:, 0].copy(), kinetic, rows[:, 14].copy(), rows[:, 16:].copy(), slopes, energies, neighbours, np.array(inserted)
        )

    def insertion(self, state: SolvationState, count: int) -> float:
        """<exp(-u/kT)> of fully coupled particles at `count` random places among the solvent of a configuration."""
        generator = state.key.derive("insertions", state.step).generator()
        squares = np.zeros((count, 1, self.system.atoms))
        for column in state.positions[1:].T:
            apart = generator.uniform(0, self.system.box, (count, 1, 1)) - column
            apart -= self.system.box * np.rint(apart / self.system.box)
            squares += apart**2
        energies = self.solute.pair_energies(squares, 1.0).sum(axis=(1, 2))
        return float(np.exp(-energies / self.temperature).mean())

    def observables(self, state: SolvationState) -> dict[str, float]:
        """Potential energy a particle, pressure, kinetic temperature, and dU/dl."""
        found = self.kernel.evaluate(state.positions, self.species, self.cell, self.threads)
        kinetic = float((state.velocities**2).sum())
        return {
            "potential_energy": found.energy / len(state.positions),
            "pressure": (kinetic + float(np.trace(found.virial))) / (3 * self.system.box**3),
            "temperature": kinetic / self.freedom,
            "slope": self.solute.at(state.positions, self.coupling).slope,
        }

    def conserved(self, state: SolvationState) -> dict[str, float]:
        """Energy less heat, in units of kT a degree of freedom, and momentum in thermal ones."""
        found = self.kernel.evaluate(state.positions, self.species, self.cell, self.threads)
        kinetic = 0.5 * float((state.velocities**2).sum())
        kept = {"balance": (found.energy + kinetic - state.heat) / (self.freedom * self.temperature)}
        for axis, value in zip("xyz", state.velocities.sum(axis=0).tolist(), strict=True):
            kept[f"momentum_{axis}"] = value / math.sqrt(self.temperature)
        return kept

    def symmetric(self, state: SolvationState, key: Key) -> Iterator[tuple[str, SolvationState]]:
        """A random image of `state` under each symmetry; solvents alone are permuted."""
        generator = key.generator()
        yield "translation", replace(state, positions=state.positions + generator.uniform(0, self.system.box, 3))
        order = np.concatenate([[0], 1 + generator.permutation(self.system.atoms)])
        yield "permutation", replace(state, positions=state.positions[order], velocities=state.velocities[order])
        axes, signs = generator.permutation(3), generator.choice([-1.0, 1.0], 3)
        turned = {name: getattr(state, name)[:, axes] * signs for name in ("positions", "velocities")}
        yield "cubic rotation", replace(state, **turned)

    def _look(self, state: SolvationState, couplings: Sequence[float]) -> tuple[float, np.ndarray, float]:
        """dU/dl, the solute's energy at each coupling, and how many neighbours it has."""
        squares = self.solute.squares(torch.from_numpy(state.positions)).numpy()
        energies = self.solute.pair_energies(squares[None], np.asarray(couplings)[:, None, None]).sum(axis=(1, 2))
        near, system = squares[squares <= self.system.cutoff**2], self.system
        slopes = coupling_slope(
            np.append(near, system.cutoff**2), system.pair_epsilon, system.pair_sigma, self.alpha, self.coupling
        )
        return float((slopes[:-1] - slopes[-1]).sum()), energies, float(len(near))

    def _advance(self, state: SolvationState, steps: int) -> tuple[SolvationState, np.ndarray]:
        """The state `steps` time steps later and the last row that the kernel recorded, in calls of `CALL_STEPS` at most."""
        row = np.empty((1, SAMPLE))
        while steps > 0:
            some = min(steps, CALL_STEPS)
            state, steps = self._call(state, some, row), steps - some
        return state, row[0]

    def _call(self, state: SolvationState, stride: int, row: np.ndarray) -> SolvationState:
        """One compiled call of `stride` steps, recorded into row [1, SAMPLE]."""
        kernel = self.kernel
        positions, velocities, _, _, failed, atom = kernel.module.advance(
            state.positions, state.velocities, self.species, self.cell, kernel.parameters, kernel.cutoffs, kernel.begins, SKINS,
            self.time_step, 0.0, True, stride, row, self.threads,
        )  # fmt: skip
        if atom >= 0:
            raise TaskError(
                f"Step {state.step + failed}: particle {atom} flies further than half a unit of length in one time step, or has "
                f"no finite position; the run has exploded. Lower `time_step` (now {self.time_step:g}), or take a smaller solute."
            )
        row[:, 14] += state.heat
        return replace(state, positions=positions, velocities=velocities, step=state.step + stride, heat=float(row[0, 14]))
