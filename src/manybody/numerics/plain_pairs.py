"""Pair energies and forces in plain torch, on any device: the oracle of the generated kernels, and the path on CUDA.

Written without regard to speed: all pairs, chunk by chunk, minimum image. Sums run in a fixed order, so that the same
input gives the same bits on the same device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manybody.numerics.expressions import FUNCTIONS, evaluated, parsed
from manybody.numerics.pairs import PairPotential
from manybody.numerics.tables import Pieces

CHUNK_BYTES = 256 * 2**20  # of one [rows, atoms, 3] array


@dataclass(frozen=True)
class PlainPairs:
    """A potential with values for its parameters, evaluated by torch and differentiated by autograd."""

    potential: PairPotential
    values: dict[str, float]

    def energy(self, r2: Tensor) -> Tensor:
        """u as a function of squared distances, of any shape; not shifted."""
        names: dict[str, Any] = {"r2": r2, "r": torch.sqrt(r2)} | self.values
        tree = parsed(self.potential.expression, names, f"pair potential `{self.potential.name}`")
        return torch.zeros_like(r2) + evaluated(tree, names, OF_TENSORS)

    def force_over_r(self, r2: Tensor) -> Tensor:
        """-u'(r)/r = -2 du/d(r2), for squared distances of any shape."""
        with torch.enable_grad():
            leaf = r2.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(leaf).sum(), leaf)
        return -2 * slope

    def evaluate(self, positions: Tensor, box: Tensor, cutoff: float) -> tuple[Tensor, float, float, float]:
        """See `sums`."""
        return sums(self, positions, box, cutoff)


@dataclass(frozen=True)
class PlainTable:
    """A table evaluated by torch (`tables.Pieces`); below it there is no number."""

    pieces: Pieces

    def energy(self, r2: Tensor) -> Tensor:
        """u as a function of squared distances, of any shape; not shifted."""
        (a, b, c, d), t = self._piece(r2)
        return a + t * (b + t * (c + t * d))

    def force_over_r(self, r2: Tensor) -> Tensor:
        """-u'(r)/r = -2 du/d(r2), for squared distances of any shape."""
        (_, b, c, d), t = self._piece(r2)
        return -2 * self.pieces.per_square * (b + t * (2 * c + t * 3 * d))

    def evaluate(self, positions: Tensor, box: Tensor, cutoff: float) -> tuple[Tensor, float, float, float]:
        """See `sums`."""
        return sums(self, positions, box, cutoff)

    def _piece(self, r2: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """a, b, c, d of the pieces that squares lie in, and how far from 0 to 1 in them."""
        rows = torch.as_tensor(self.pieces.coefficients, dtype=r2.dtype, device=r2.device)
        place = (r2 - self.pieces.low) * self.pieces.per_square
        place = torch.where(place >= 0, place, torch.nan)
        row = place.nan_to_num().clamp(max=len(rows) - 1).long()
        return rows[row].unbind(-1), place - row


def sums(potential: PlainPairs | PlainTable, positions: Tensor, box: Tensor, cutoff: float) -> tuple[Tensor, float, float, float]:
    """Forces [atoms, 3], energy (not shifted), virial and number of pairs within `cutoff`, at most half the box.

    positions [atoms, 3] and box [3] on the same device. Cost: O(atoms^2).
    """
    atoms = len(positions)
    rows = max(1, CHUNK_BYTES // (24 * atoms))
    forces, totals = torch.empty_like(positions), torch.zeros(3, dtype=positions.dtype, device=positions.device)
    for start in range(0, atoms, rows):
        apart = positions[start : start + rows, None] - positions
        apart = apart - box * torch.round(apart / box)
        r2 = (apart**2).sum(dim=-1)
        own = torch.arange(len(r2), device=r2.device)
        r2[own, start + own] = torch.inf
        inside = ~(r2 > cutoff**2)
        safe = torch.where(inside, r2, cutoff**2)
        pull = torch.where(inside, potential.force_over_r(safe), 0.0)
        forces[start : start + rows] = (pull[..., None] * apart).sum(dim=1)
        energy = torch.where(inside, potential.energy(safe), 0.0).sum()
        totals = totals + 0.5 * torch.stack([energy, (pull * safe).sum(), inside.sum()])
    energy_sum, virial, pairs = totals.tolist()
    return forces, energy_sum, virial, pairs


def lifted(name: str) -> Callable[[Any], Tensor]:
    """A function of torch by its name; of a number, it is computed in double precision."""
    function = getattr(torch, name)
    return lambda value: function(value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64))


OF_TENSORS = {name: lifted(name) for name in FUNCTIONS}
"""What formulas may call, for tensors."""
