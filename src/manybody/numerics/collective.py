"""Collective variables: distances, angles and torsions of chosen atoms, with their gradients, compiled.

    distance |x1 - x0|;   angle at x1, 0 to pi;   torsion about x1 x2, -pi to pi (IUPAC: 0 where the outer atoms eclipse)

A torsion is periodic: differences are taken the shorter way round (`wrapped`). Positions are whole: no image is taken.
Units are those of the positions, and radians. Source of the gradient of a torsion: A. Blondel and M. Karplus, J. Comput.
Chem. 17, 1132 (1996).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.bonded import angle, dihedral, distance
from manybody.numerics.jit import exact_kernel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Vector = tuple[float, float, float]
Variable = Literal["distance", "angle", "torsion"]

ORDER: tuple[Variable, ...] = ("distance", "angle", "torsion")  # a variable is told by its number in kernels
MEMBERS = {"distance": 2, "angle": 3, "torsion": 4}  # atoms of a variable
FORMULAS = {"distance": distance, "angle": angle, "torsion": dihedral}
_DISTANCE, _ANGLE = 0, 1


# --- the compiled path -----------------------------------------------------------------------------------------


@exact_kernel
def wrapped(turn: float) -> float:
    """An angle brought into -pi to pi, by whole turns."""
    return float(turn - 2.0 * math.pi * np.rint(turn / (2.0 * math.pi)))


# Vectors are tuples here: they stay in registers, where an array of three would be allocated for each term.


@exact_kernel
def _between(x: Array, i: int, j: int) -> Vector:
    return x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]


@exact_kernel
def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@exact_kernel
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@exact_kernel
def distance_and_gradient(x: Array, atoms: Indices, gradient: Array) -> float:
    """|x1 - x0| of atoms [2] at x [all atoms, 3]; what it changes by with each goes into gradient [2, 3]."""
    a = _between(x, atoms[0], atoms[1])
    r = math.sqrt(_dot(a, a))
    for d in range(3):
        gradient[1, d] = a[d] / r
        gradient[0, d] = -gradient[1, d]
    return r


@exact_kernel
def angle_and_gradient(x: Array, atoms: Indices, gradient: Array) -> float:
    """The angle of atoms [3], 0 to pi; what it changes by with each goes into gradient [3, 3]."""
    a, b = _between(x, atoms[1], atoms[0]), _between(x, atoms[1], atoms[2])
    normal = _cross(a, b)
    width = max(math.sqrt(_dot(normal, normal)), 1e-30)  # 0 on a straight line, where the gradient has no direction
    first, last = _cross(a, normal), _cross(normal, b)
    for d in range(3):
        gradient[0, d] = first[d] / (_dot(a, a) * width)
        gradient[2, d] = last[d] / (_dot(b, b) * width)
        gradient[1, d] = -gradient[0, d] - gradient[2, d]
    return math.atan2(width, _dot(a, b))


@exact_kernel
def torsion_and_gradient(x: Array, atoms: Indices, gradient: Array) -> float:
    """The torsion of atoms [4], -pi to pi; what it changes by with each goes into gradient [4, 3]."""
    a, b, c = _between(x, atoms[0], atoms[1]), _between(x, atoms[1], atoms[2]), _between(x, atoms[2], atoms[3])
    first, second = _cross(a, b), _cross(b, c)
    width = math.sqrt(_dot(b, b))
    for_first, for_last = width / _dot(first, first), width / _dot(second, second)
    along_a, along_c = _dot(a, b) / (width * width), _dot(c, b) / (width * width)
    for d in range(3):
        start, end = -for_first * first[d], for_last * second[d]
        shift = along_a * start - along_c * end
        gradient[0, d] = start
        gradient[1, d] = -start - shift
        gradient[2, d] = shift - end
        gradient[3, d] = end
    return math.atan2(width * _dot(a, second), _dot(first, second))


@exact_kernel
def look(x: Array, kinds: Indices, atoms: Indices, values: Array, gradients: Array) -> None:
    """Values [variables] and gradients [variables, 4, 3] of the variables `kinds` of `atoms` [variables, 4] at x [atoms, 3]."""
    for n in range(kinds.size):
        if kinds[n] == _DISTANCE:
            values[n] = distance_and_gradient(x, atoms[n], gradients[n])
        elif kinds[n] == _ANGLE:
            values[n] = angle_and_gradient(x, atoms[n], gradients[n])
        else:
            values[n] = torsion_and_gradient(x, atoms[n], gradients[n])


@dataclass(frozen=True)
class Collective:
    """Some collective variables: what each is, and its atoms (as many as it takes, by number)."""

    variables: tuple[tuple[Variable, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        for form, atoms in self.variables:
            if len(atoms) != MEMBERS[form] or len(set(atoms)) != len(atoms) or min(atoms) < 0:
                expected = f"{MEMBERS[form]} different atoms, counted from 0"
                raise InputError(Problem(form, expected, f"{list(atoms)}", "Name each atom once."))

    @classmethod
    def torsions(cls, atoms: Sequence[Sequence[int]]) -> Collective:
        """Torsions only."""
        return cls(tuple(("torsion", tuple(row)) for row in atoms))

    @property
    def kinds(self) -> Indices:
        """The number of each variable's form, as kernels take it."""
        return np.array([ORDER.index(form) for form, _ in self.variables], dtype=np.int64)

    @property
    def atoms(self) -> Indices:
        """The atoms [variables, 4], filled up with the first where there are fewer than 4."""
        rows = [(*atoms, *[atoms[0]] * (4 - len(atoms))) for _, atoms in self.variables]
        return np.array(rows, dtype=np.int64).reshape(-1, 4)

    @property
    def periodic(self) -> NDArray[np.bool_]:
        """Which of them come round after a turn."""
        return np.array([form == "torsion" for form, _ in self.variables], dtype=np.bool_)

    def look(self, positions: Array) -> tuple[Array, Array]:
        """Values [variables] and gradients [variables, 4, 3] by the variable's own atoms, at positions [atoms, 3]."""
        values, gradients = np.zeros(len(self.variables)), np.zeros((len(self.variables), 4, 3))
        look(positions, self.kinds, self.atoms, values, gradients)
        return values, gradients

    def formula(self, positions: Tensor) -> Tensor:
        """The same values in plain torch, differentiable: the oracle of the kernels.  positions: [atoms, 3]; [variables]."""
        return torch.cat([FORMULAS[form](positions[list(atoms)][None]) for form, atoms in self.variables])
