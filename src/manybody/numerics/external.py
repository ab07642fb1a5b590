"""Forces of the surroundings on each atom: traps, walls, constant forces, gravity.

Energies are functions of one atom's position x. A wall is a plane with unit normal n through the point d n; the atoms'
side is where z = n . x - d is positive. Nothing is periodic here: where a box is, a field must not notice its edges.
Source of the 9-3 wall, a half-space of Lennard-Jones atoms: W. A. Steele, Surf. Sci. 36, 317 (1973).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.jit import kernel

Array = NDArray[np.float64]
Field = Literal["harmonic-trap", "constant-force", "gravity", "harmonic-wall", "nine-three-wall"]

# --- the formulas ----------------------------------------------------------------------------------------------


def trap_energy(x: Tensor, k: Tensor, centre: Tensor) -> Tensor:
    """sum_d k_d (x_d - centre_d)^2 / 2.  x: [atoms, 3]; k, centre: [3]; returns [atoms]."""
    return 0.5 * (k * (x - centre) ** 2).sum(dim=1)


def constant_energy(x: Tensor, force: Tensor) -> Tensor:
    """-force . x.  x: [atoms, 3]; force: [3], on each atom; returns [atoms]."""
    return -(x @ force)


def gravity_energy(x: Tensor, masses: Tensor, acceleration: Tensor) -> Tensor:
    """-m acceleration . x.  x: [atoms, 3]; masses: [atoms]; acceleration: [3]; returns [atoms]."""
    return -masses * (x @ acceleration)


def height(x: Tensor, normal: Tensor, place: Tensor) -> Tensor:
    """z = n . x - d.  x: [atoms, 3]; normal: [3], of length 1; returns [atoms]."""
    return x @ normal - place


def harmonic_wall_energy(z: Tensor, k: Tensor) -> Tensor:
    """k z^2 / 2 behind the wall, 0 before it; elementwise."""
    return 0.5 * k * torch.clamp(z, max=0) ** 2


def nine_three_energy(z: Tensor, epsilon: Tensor, sigma: Tensor) -> Tensor:
    """epsilon [2/15 (sigma/z)^9 - (sigma/z)^3] for z > 0; elementwise."""
    return epsilon * (2 / 15 * (sigma / z) ** 9 - (sigma / z) ** 3)


# --- the compiled path -----------------------------------------------------------------------------------------

_FIELDS: dict[Field, int] = {
    "harmonic-trap": 6,
    "constant-force": 3,
    "gravity": 3,
    "harmonic-wall": 5,
    "nine-three-wall": 6,
}  # how many parameters each has
_TRAP, _CONSTANT, _GRAVITY, _HARMONIC_WALL = 0, 1, 2, 3


@kernel
def _wall(form: int, z: float, p: Array) -> tuple[float, float]:
    """Energy and its derivative by z. NaN behind a wall that nothing passes, which stops a run."""
    if form == _HARMONIC_WALL:
        return (0.5 * p[4] * z * z, p[4] * z) if z < 0.0 else (0.0, 0.0)
    if not z > 0.0:
        return math.nan, math.nan
    third = (p[5] / z) ** 3
    ninth = third * third * third
    return p[4] * (2.0 / 15.0 * ninth - third), p[4] * (3.0 * third - 1.2 * ninth) / z


@kernel
def add_field(form: int, x: Array, masses: Array, p: Array, f: Array) -> float:
    """The energy of all atoms [atoms, 3] in a field; forces are added to f [atoms, 3]."""
    total = 0.0
    for i in range(x.shape[0]):
        if form == _TRAP:
            for d in range(3):
                apart = x[i, d] - p[3 + d]
                total += 0.5 * p[d] * apart * apart
                f[i, d] -= p[d] * apart
        elif form in (_CONSTANT, _GRAVITY):
            weight = masses[i] if form == _GRAVITY else 1.0
            for d in range(3):
                total -= weight * p[d] * x[i, d]
                f[i, d] += weight * p[d]
        else:
            z = p[0] * x[i, 0] + p[1] * x[i, 1] + p[2] * x[i, 2] - p[3]
            energy, slope = _wall(form, z, p)
            total += energy
            for d in range(3):
                f[i, d] -= slope * p[d]
    return total


@dataclass(frozen=True)
class ExternalField:
    """A field and its parameters: trap k [3], centre [3]; force or acceleration [3]; wall normal [3], place, then its own.

    A harmonic wall has a stiffness, a 9-3 wall epsilon and sigma.
    """

    form: Field
    parameters: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.parameters) != _FIELDS[self.form]:
            expected, came = f"{_FIELDS[self.form]} parameters", f"{len(self.parameters)}"
            raise InputError(Problem(self.form, expected, came, "Give them as `ExternalField` says."))
        if self.form.endswith("wall") and abs(math.hypot(*self.parameters[:3]) - 1) > 1e-12:
            came = f"one of length {math.hypot(*self.parameters[:3]):g}"
            raise InputError(Problem(self.form, "a normal of length 1", came, "Divide it by its length."))

    def add_forces(self, positions: Array, masses: Array, forces: Array) -> float:
        """The energy of atoms [atoms, 3] of `masses` [atoms]; their forces are added to `forces` [atoms, 3]."""
        return float(add_field(list(_FIELDS).index(self.form), positions, masses, np.array(self.parameters), forces))

    def energy(self, positions: Tensor, masses: Tensor) -> Tensor:
        """The same energy in plain torch, differentiable: the oracle of the kernel.  Returns []."""
        p = torch.tensor(self.parameters, dtype=positions.dtype, device=positions.device)
        if self.form == "harmonic-trap":
            return trap_energy(positions, p[:3], p[3:]).sum()
        if self.form == "constant-force":
            return constant_energy(positions, p).sum()
        if self.form == "gravity":
            return gravity_energy(positions, masses, p).sum()
        z = height(positions, p[:3], p[3])
        return (harmonic_wall_energy(z, p[4]) if self.form == "harmonic-wall" else nine_three_energy(z, p[4], p[5])).sum()
