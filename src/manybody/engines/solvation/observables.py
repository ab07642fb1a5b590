"""Free energies of solvation, by four routes over the same runs. Neither torch nor Numba is loaded before one is measured.

The potential is shifted to zero at the cutoff. What is told is that of the potential without a cutoff: to first order the
shift costs u(r_c) for each neighbour of the coupled solute, and what lies beyond is added at g(r) = 1. Excess chemical
potential is the word for it where the solute is one more particle of the liquid.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.solvation.estimators import acceptance_ratio, exponential, jackknifed
from manybody.engines.solvation.known_answers import pair_energy, tail
from manybody.engines.solvation.quadrature import lobatto
from manybody.engines.solvation.spec import AlchemicalDynamics, LennardJonesSolvation

Array = np.ndarray


@dataclass(frozen=True)
class Windows:
    """What the windows of one realisation recorded, over kT, window by window.

    energies: of each, [samples, couplings]; slopes [samples]; neighbours of the last window and Boltzmann factors of
    insertion into the first, [samples]; block of each sample of each window [samples].
    """

    energies: tuple[Array, ...]
    slopes: tuple[Array, ...]
    neighbours: Array
    insertions: Array
    blocks: tuple[Array, ...]

    @classmethod
    def of(cls, point: Point, outputs: Sequence[Output]) -> Windows:
        """Those of a realisation's measured outputs."""
        system, method = typed(point)
        parts = [[output for output in outputs if output.document["coupling"] == value] for value in method.couplings]

        def joined(name: str, window: int) -> Array:
            return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in parts[window]])

        counts = range(len(parts))
        energies = tuple(joined("energies", window) / system.temperature for window in counts)
        slopes = tuple(joined("slopes", window) / system.temperature for window in counts)
        blocks = tuple(np.arange(len(run)) * method.blocks // len(run) for run in slopes)
        return cls(energies, slopes, joined("neighbours", -1), joined("insertions", 0), blocks)

    def without(self, block: int) -> Windows:
        """All samples but those of a block of each window; all of them at -1."""
        kept = [numbers != block for numbers in self.blocks]
        return Windows(
            tuple(run[keep] for run, keep in zip(self.energies, kept, strict=True)),
            tuple(run[keep] for run, keep in zip(self.slopes, kept, strict=True)),
            self.neighbours[kept[-1]],
            self.insertions[kept[0]],
            tuple(run[keep] for run, keep in zip(self.blocks, kept, strict=True)),
        )

    def works(self, first: int, last: int) -> Array:
        """u_last - u_first over the samples of `first`."""
        return np.asarray(self.energies[first][:, last] - self.energies[first][:, first])

    def integrated(self) -> float:
        """The integral of <dU/dl> by the Gauss-Lobatto rule, kT."""
        return float(lobatto(len(self.slopes))[1] @ [run.mean() for run in self.slopes])

    def forward(self) -> float:
        """Sum of the exponential averages from each window towards the next, kT."""
        return math.fsum(exponential(self.works(k, k + 1)) for k in range(len(self.slopes) - 1))

    def backward(self) -> float:
        """Sum of the exponential averages from each window towards the one before, its sign turned, kT."""
        return -math.fsum(exponential(self.works(k + 1, k)) for k in range(len(self.slopes) - 1))

    def accepted(self) -> float:
        """Sum of Bennett's free energies between neighbours, kT."""
        return math.fsum(acceptance_ratio(self.works(k, k + 1), self.works(k + 1, k)) for k in range(len(self.slopes) - 1))

    def multistate(self) -> float:
        """MBAR's free energy of the last window less that of the first, kT."""
        from manybody.numerics.mbar import mixture  # compiled: only where it is measured

        counts = np.array([len(run) for run in self.slopes])
        found = mixture(np.concatenate(self.energies).T.copy(), counts)
        return float(found.free_energies[-1])

    def inserted(self) -> float:
        """-log of the mean Boltzmann factor of insertion, kT: B. Widom, J. Chem. Phys. 39, 2808 (1963)."""
        return -math.log(float(self.insertions.mean()))


class _Solvation(MeasureSpec):
    """A free energy of solvation; pseudo-values of the jackknife as samples."""

    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = ("alchemical-dynamics",)

    @abstractmethod
    def estimate(self, windows: Windows) -> float:
        """The free energy of the shifted potential, kT."""

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a block, whose mean is the estimate and whose scatter is its error."""
        system, method = typed(point)
        windows = Windows.of(point, outputs)
        edge = pair_energy(system.cutoff, system.pair_sigma, system.pair_epsilon)
        beyond = tail(system.density, system.cutoff, system.pair_sigma, system.pair_epsilon)

        def whole(block: int) -> float:
            kept = windows.without(block)
            return system.temperature * self.estimate(kept) + edge * float(kept.neighbours.mean()) + beyond

        values = jackknifed(whole, method.blocks)
        return Samples(values, np.ones(len(values)), method.duration / method.blocks)


class SolvationFreeEnergy(_Solvation):
    """By MBAR, from the energies of all samples at all couplings."""

    summary: ClassVar[str] = "free energy of solvation, or excess chemical potential, from windows by MBAR"
    symbol: ClassVar[str] = "mu_ex"

    name: Literal["solvation-free-energy"] = "solvation-free-energy"

    def estimate(self, windows: Windows) -> float:
        """MBAR's."""
        return windows.multistate()


class AcceptedFreeEnergy(_Solvation):
    """By Bennett's acceptance ratio between neighbours."""

    summary: ClassVar[str] = "the same by Bennett's acceptance ratio between neighbouring windows"
    symbol: ClassVar[str] = "mu_ex (BAR)"

    name: Literal["accepted-free-energy"] = "accepted-free-energy"

    def estimate(self, windows: Windows) -> float:
        """The sum of those between neighbours."""
        return windows.accepted()


class IntegratedFreeEnergy(_Solvation):
    """By integration of <dU/dl> over the windows."""

    summary: ClassVar[str] = "the same by integrating dU/dl over the coupling"
    symbol: ClassVar[str] = "mu_ex (TI)"

    name: Literal["integrated-free-energy"] = "integrated-free-energy"

    def estimate(self, windows: Windows) -> float:
        """The Gauss-Lobatto sum."""
        return windows.integrated()


class InsertedFreeEnergy(_Solvation):
    """By random insertion into the liquid without the solute."""

    summary: ClassVar[str] = "the same by Widom's random insertion, where the coupling is 0"
    symbol: ClassVar[str] = "mu_ex (insertion)"

    name: Literal["inserted-free-energy"] = "inserted-free-energy"

    def estimate(self, windows: Windows) -> float:
        """From the mean Boltzmann factor."""
        return windows.inserted()


def typed(point: Point) -> tuple[LennardJonesSolvation, AlchemicalDynamics]:
    """The system and method of a point."""
    assert isinstance(point.system, LennardJonesSolvation)
    assert isinstance(point.method, AlchemicalDynamics)
    return point.system, point.method
