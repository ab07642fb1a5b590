"""Energies of mixtures in plain torch, differentiated by autograd: the oracle of the generated kernels.

Written without regard to speed: all pairs of all images within reach, one image after the other, in any periodic cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.numerics.mixtures import Array, Found, MixtureKernel
from manybody.numerics.plain_pairs import PlainPairs


@dataclass(frozen=True)
class PlainMixture:
    """The same mixture as a kernel, pair by pair."""

    kernel: MixtureKernel

    def pair_energy(self, r: Tensor, first: int, second: int) -> Tensor:
        """The energy of pairs of species `first` and `second` at distances r, cut off as the mixture says; of any shape."""
        mixture = self.kernel.mixture
        values = dict(zip(mixture.potential.parameters, self.kernel.parameters[first, second].tolist(), strict=True))
        plain = PlainPairs(mixture.potential, values)
        cutoff, begin = float(self.kernel.cutoffs[first, second]), float(self.kernel.begins[first, second])
        edge = torch.tensor([cutoff**2], dtype=r.dtype)
        energy = plain.energy(r**2)
        if mixture.treatment in ("shifted", "force-shifted"):
            energy = energy - plain.energy(edge)
        if mixture.treatment == "force-shifted":
            energy = energy + (r - cutoff) * cutoff * plain.force_over_r(edge)
        if mixture.treatment == "switched":
            t = torch.clamp((r**2 - begin**2) / (cutoff**2 - begin**2), min=0)
            energy = energy * (1 - t**3 * (10 - 15 * t + 6 * t**2))
        return torch.where(r <= cutoff, energy, 0.0)

    def energy(self, positions: Tensor, species: NDArray[np.int64], cell: Tensor) -> Tensor:
        """The energy of positions [atoms, 3] in a cell [3, 3], differentiable in both."""
        heights = 1 / torch.linalg.norm(torch.linalg.inv(cell.detach()), dim=0)
        sites = positions @ torch.linalg.inv(cell)
        inside = (sites - torch.floor(sites.detach())) @ cell
        most = [int(self.kernel.longest / height) + 1 for height in heights.tolist()]
        total = torch.zeros((), dtype=positions.dtype)
        for hop in product(*(range(-count, count + 1) for count in most)):
            apart = inside[:, None] - inside - torch.tensor(hop, dtype=cell.dtype) @ cell
            r2 = (apart**2).sum(dim=-1)
            if hop == (0, 0, 0):  # an atom does not meet itself
                r2 = r2 + torch.diag(torch.full((len(r2),), torch.inf, dtype=r2.dtype))
            total = total + 0.5 * self._sum(r2, species)
        return total

    def _sum(self, r2: Tensor, species: NDArray[np.int64]) -> Tensor:
        total = torch.zeros((), dtype=r2.dtype)
        for first, second in product(range(self.kernel.mixture.species), repeat=2):
            chosen = r2[np.ix_(species == first, species == second)]
            near = chosen[chosen <= float(self.kernel.cutoffs[first, second]) ** 2]
            total = total + self.pair_energy(torch.sqrt(near), first, second).sum()
        return total

    def evaluate(self, positions: Array, species: NDArray[np.int64], cell: Array) -> Found:
        """What `MixtureKernel.evaluate` gives; forces and virial as slopes of the energy in positions and in a strain."""
        x = torch.from_numpy(np.array(positions, dtype=np.float64)).requires_grad_()
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        stretch = torch.eye(3, dtype=torch.float64) + strain
        lattice = torch.from_numpy(np.array(cell, dtype=np.float64))
        energy = self.energy(x @ stretch, species, lattice @ stretch)
        slope, stress = torch.autograd.grad(energy, (x, strain))
        return Found(-slope.numpy(), float(energy.detach()), -stress.numpy(), self._pairs(x.detach(), species, lattice))

    def _pairs(self, positions: Tensor, species: NDArray[np.int64], cell: Tensor) -> float:
        heights = 1 / torch.linalg.norm(torch.linalg.inv(cell), dim=0)
        sites = positions @ torch.linalg.inv(cell)
        inside = (sites - torch.floor(sites)) @ cell
        limit = torch.from_numpy(self.kernel.cutoffs[np.ix_(species, species)])
        count = 0.0
        for hop in product(
            *(range(-int(self.kernel.longest / h) - 1, int(self.kernel.longest / h) + 2) for h in heights.tolist())
        ):
            apart = inside[:, None] - inside - torch.tensor(hop, dtype=cell.dtype) @ cell
            count += 0.5 * float((torch.linalg.norm(apart, dim=-1) <= limit).sum()) - (
                0.5 * len(positions) if not any(hop) else 0
            )
        return count
