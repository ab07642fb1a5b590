"""Bonded terms whose energy is a formula: what `BondedTerms` does for the built-in forms, for those of others.

held = BondedPotential("k/2*wrapped(phi - phi0)**2", ("k", "phi0"))
terms = FormulaTerms(held, atoms=np.array([[4, 6, 8, 14]]), parameters=np.array([[500.0, -1.0]]))
energy = terms.add_forces(positions, forces)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.bonded import angle, dihedral, distance
from manybody.numerics.bonded_formulas import BondedPotential, Coordinate
from manybody.numerics.expressions import evaluated
from manybody.numerics.plain_pairs import OF_TENSORS

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_COORDINATES: dict[Coordinate, Callable[[Tensor], Tensor]] = {"r": distance, "theta": angle, "phi": dihedral}
_JUMP = 1e-9  # of the largest energy round the circle: round-off, and parameters given to ten digits


@dataclass(frozen=True)
class FormulaTerms:
    """Terms of one formula: atoms [terms, atoms of a term] and parameters [terms, parameters], in the potential's order.

    Raises `InputError` for other shapes, for atoms that are named twice, and where the energy of a torsion jumps from pi
    to -pi.
    """

    potential: BondedPotential
    atoms: Indices
    parameters: Array

    form: ClassVar[str] = "formula"  # as against the built-in ones of `BondedTerms`

    def __post_init__(self) -> None:
        members, values = self.potential.members, len(self.potential.parameters)
        if self.atoms.shape[1:] != (members,) or self.parameters.shape != (len(self.atoms), values):
            expected = f"atoms [terms, {members}] and parameters [terms, {values}]"
            came = f"atoms {list(self.atoms.shape)} and parameters {list(self.parameters.shape)}"
            raise InputError(Problem(self.potential.where, expected, came, "Give one row for each term."))
        for row in self.atoms.tolist():
            if len(set(row)) < members or min(row) < 0:
                raise InputError(
                    Problem(self.potential.where, f"{members} different atoms, counted from 0", f"{row}", "Name each once.")
                )
        if self.potential.coordinate == "phi":
            self._refuse_jumps()

    def add_forces(self, positions: Array, forces: Array) -> float:
        """The energy of all terms; their forces are added to `forces` [atoms, 3]. Positions [atoms, 3] are whole."""
        return float(self.potential.module.add_forces(positions, self.atoms, self.parameters, forces))

    def energy(self, positions: Tensor) -> Tensor:
        """The same energy in plain torch, differentiable: the oracle of the kernel.  positions: [atoms, 3]; returns []."""
        return plain_energy(self.potential, positions, torch.from_numpy(self.atoms), torch.from_numpy(self.parameters))

    def _refuse_jumps(self) -> None:
        """A torsion comes round after a turn, and so must its energy."""
        angles = torch.linspace(-math.pi, math.pi, 9, dtype=torch.float64)
        found = torch.stack([of_coordinate(self.potential, angle, torch.from_numpy(self.parameters)) for angle in angles])
        if found.isnan().any():
            remedy = "Take roots and logarithms only of what is positive all round."
            raise InputError(Problem(self.potential.where, "an energy for every phi from -pi to pi", "none for some", remedy))
        first, last = found[0], found[-1]
        jumps = (first != last) & ~((last - first).abs() <= _JUMP * found.abs().max(dim=0).values)
        if jumps.any():
            came = f"{first[jumps][0]:g} and {last[jumps][0]:g}"
            remedy = "Take a function of cos(phi), whole numbers in cos(n*phi), or wrapped(phi - phi0) for a difference."
            raise InputError(Problem(self.potential.where, "the same energy at -pi and pi", came, remedy))


def plain_energy(potential: BondedPotential, positions: Tensor, atoms: Tensor, parameters: Tensor) -> Tensor:
    """The energy [] of terms of atoms [terms, members] with parameters [terms, parameters], by torch as it is written."""
    return of_coordinate(potential, _COORDINATES[potential.coordinate](positions[atoms]), parameters).sum()


def of_coordinate(potential: BondedPotential, q: Tensor, parameters: Tensor) -> Tensor:
    """The energies [terms] at coordinates q, [terms] or [], with parameters [terms, parameters]."""
    names = {potential.coordinate: q, **dict(zip(potential.parameters, parameters.unbind(1), strict=True))}
    functions = OF_TENSORS | {"wrapped": _wrapped}
    return parameters.new_zeros(len(parameters)) + evaluated(potential.tree, names, functions, float)


def _wrapped(given: Tensor | float) -> Tensor:
    turn = torch.as_tensor(given, dtype=torch.float64) if isinstance(given, float | int) else given
    return turn - 2 * math.pi * torch.round(turn.detach() / (2 * math.pi))
