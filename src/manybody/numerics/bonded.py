"""Forces along bonds: stretching, bending and turning of chains of two, three and four atoms.

Energies are functions of a distance r, an angle theta, or a dihedral angle phi (IUPAC: 0 where the outer atoms eclipse
each other, pi where they are trans). A kernel finds the coordinate and its gradient; what differs from term to term is the
energy alone. Positions of a molecule are whole: no image is taken. Since the forces of a term add up to zero, the virial
of all terms together is sum_i x_i f_i.

Sources: gradient of the dihedral angle, A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996); finitely extensible
bonds, K. Kremer and G. S. Grest, J. Chem. Phys. 92, 5057 (1990); bonds that break, P. M. Morse, Phys. Rev. 34, 57 (1929);
alkane torsions, J.-P. Ryckaert and A. Bellemans, Chem. Phys. Lett. 30, 123 (1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.jit import exact_kernel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Form = Literal[
    "harmonic-bond", "fene-bond", "harmonic-angle", "periodic-torsion", "ryckaert-bellemans", "harmonic-improper", "morse-bond"
]  # fmt: skip

# --- the formulas ----------------------------------------------------------------------------------------------


def harmonic_energy(q: Tensor, k: Tensor, q0: Tensor) -> Tensor:
    """k (q - q0)^2 / 2 of a distance (length) or an angle (radians); elementwise, energy."""
    return 0.5 * k * (q - q0) ** 2


def fene_energy(r: Tensor, k: Tensor, longest: Tensor) -> Tensor:
    """-k R^2 / 2 log(1 - (r / R)^2) for r < R = `longest`; elementwise, energy."""
    return -0.5 * k * longest**2 * torch.log1p(-((r / longest) ** 2))


def morse_energy(r: Tensor, depth: Tensor, a: Tensor, r0: Tensor) -> Tensor:
    """depth (1 - exp(-a (r - r0)))^2, 0 at r0 and `depth` far away; elementwise, energy."""
    return depth * torch.expm1(-a * (r - r0)) ** 2


def periodic_energy(phi: Tensor, k: Tensor, n: Tensor, phase: Tensor) -> Tensor:
    """k (1 + cos(n phi - phase)); elementwise, energy."""
    return k * (1 + torch.cos(n * phi - phase))


def ryckaert_bellemans_energy(phi: Tensor, *c: Tensor) -> Tensor:
    """sum_n c_n cos(phi - pi)^n, n = 0 .. 5: here 0 is trans; elementwise, energy."""
    cosine = -torch.cos(phi)
    return sum((value * cosine**n for n, value in enumerate(c)), torch.zeros_like(phi))


def improper_energy(phi: Tensor, k: Tensor, phi0: Tensor) -> Tensor:
    """k d^2 / 2 of the smallest turn d from phi0 to phi; elementwise, energy."""
    turn = phi - phi0
    return 0.5 * k * (turn - 2 * math.pi * torch.round(turn.detach() / (2 * math.pi))) ** 2


def distance(x: Tensor) -> Tensor:
    """|x1 - x0|.  x: [terms, 2, 3]; returns [terms]."""
    return torch.linalg.norm(x[:, 1] - x[:, 0], dim=1)


def angle(x: Tensor) -> Tensor:
    """The angle at the middle atom, 0 to pi.  x: [terms, 3, 3]; returns [terms]."""
    a, b = x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]
    return torch.atan2(torch.linalg.norm(torch.linalg.cross(a, b), dim=1), (a * b).sum(dim=1))


def dihedral(x: Tensor) -> Tensor:
    """The angle between the planes of atoms 0 1 2 and 1 2 3, -pi to pi.  x: [terms, 4, 3]; returns [terms]."""
    a, b, c = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1], x[:, 3] - x[:, 2]
    first, second = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    return torch.atan2(torch.linalg.norm(b, dim=1) * (a * second).sum(dim=1), (first * second).sum(dim=1))


COORDINATES: dict[Form, Callable[[Tensor], Tensor]] = {
    "harmonic-bond": distance,
    "fene-bond": distance,
    "harmonic-angle": angle,
    "periodic-torsion": dihedral,
    "ryckaert-bellemans": dihedral,
    "harmonic-improper": dihedral,
    "morse-bond": distance,
}
ENERGIES: dict[Form, Callable[..., Tensor]] = {
    "harmonic-bond": harmonic_energy,
    "fene-bond": fene_energy,
    "harmonic-angle": harmonic_energy,
    "periodic-torsion": periodic_energy,
    "ryckaert-bellemans": ryckaert_bellemans_energy,
    "harmonic-improper": improper_energy,
    "morse-bond": morse_energy,
}
SIZES: dict[Form, tuple[int, int]] = {
    "harmonic-bond": (2, 2),
    "fene-bond": (2, 2),
    "harmonic-angle": (3, 2),
    "periodic-torsion": (4, 3),
    "ryckaert-bellemans": (4, 6),
    "harmonic-improper": (4, 2),
    "morse-bond": (2, 3),
}  # atoms and parameters of a term


# --- the compiled path -----------------------------------------------------------------------------------------
# A form is told by its number, not by a function handed over: a kernel that closes over another is compiled in every process.

_FORMS: tuple[Form, ...] = tuple(SIZES)
_FENE, _RYCKAERT_BELLEMANS, _IMPROPER, _MORSE = 1, 4, 5, 6


@exact_kernel
def _stretch_energy(form: int, r: float, p: Array) -> tuple[float, float]:
    """Energy and its derivative by r. NaN where a bond of finite length is torn, which stops a run."""
    if form == _MORSE:
        decay = math.exp(-p[1] * (r - p[2]))
        return p[0] * (1.0 - decay) ** 2, 2.0 * p[0] * p[1] * (1.0 - decay) * decay
    if form != _FENE:
        return 0.5 * p[0] * (r - p[1]) ** 2, p[0] * (r - p[1])
    left = 1.0 - (r / p[1]) ** 2
    if not left > 0.0:
        return math.nan, math.nan
    return -0.5 * p[0] * p[1] ** 2 * math.log(left), p[0] * r / left


@exact_kernel
def _turn_energy(form: int, phi: float, p: Array) -> tuple[float, float]:
    """Energy and its derivative by phi."""
    if form == _RYCKAERT_BELLEMANS:
        cosine, value, slope = -math.cos(phi), p[5], 0.0
        for n in range(4, -1, -1):
            slope = slope * cosine + value
            value = value * cosine + p[n]
        return value, slope * math.sin(phi)
    if form == _IMPROPER:
        turn = phi - p[1]
        turn -= 2.0 * math.pi * np.rint(turn / (2.0 * math.pi))
        return 0.5 * p[0] * turn * turn, p[0] * turn
    turn = p[1] * phi - p[2]
    return p[0] * (1.0 + math.cos(turn)), -p[0] * p[1] * math.sin(turn)


@exact_kernel
def _cross(a: Array, b: Array, out: Array) -> None:
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@exact_kernel
def _dot(a: Array, b: Array) -> float:
    return float(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


@exact_kernel
def stretch(form: int, x: Array, atoms: Indices, parameters: Array, f: Array) -> float:
    """The energy of terms of two atoms; forces are added to f [atoms, 3]."""
    total, a = 0.0, np.empty(3)
    for t in range(atoms.shape[0]):
        i, j = atoms[t, 0], atoms[t, 1]
        for d in range(3):
            a[d] = x[j, d] - x[i, d]
        r = math.sqrt(_dot(a, a))
        energy, slope = _stretch_energy(form, r, parameters[t])
        total += energy
        for d in range(3):
            pull = slope * a[d] / r
            f[i, d] += pull
            f[j, d] -= pull
    return total


@exact_kernel
def bend(form: int, x: Array, atoms: Indices, parameters: Array, f: Array) -> float:
    """The energy of terms of three atoms, all harmonic in the angle; forces are added to f [atoms, 3]."""
    total, a, b, normal, over_a, over_b = 0.0, np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for t in range(atoms.shape[0]):
        i, j, k = atoms[t, 0], atoms[t, 1], atoms[t, 2]
        for d in range(3):
            a[d], b[d] = x[i, d] - x[j, d], x[k, d] - x[j, d]
        _cross(a, b, normal)
        width = max(math.sqrt(_dot(normal, normal)), 1e-30)  # 0 on a straight line, where the force has no direction
        gap = math.atan2(width, _dot(a, b)) - parameters[t, 1]
        total += 0.5 * parameters[t, 0] * gap * gap
        slope = parameters[t, 0] * gap
        _cross(a, normal, over_a)
        _cross(b, normal, over_b)
        scale_a, scale_b = slope / (_dot(a, a) * width), slope / (_dot(b, b) * width)
        for d in range(3):
            pull_a, pull_b = -scale_a * over_a[d], scale_b * over_b[d]
            f[i, d] += pull_a
            f[j, d] -= pull_a + pull_b
            f[k, d] += pull_b
    return total


@exact_kernel
def turn(form: int, x: Array, atoms: Indices, parameters: Array, f: Array) -> float:
    """The energy of terms of four atoms; forces are added to f [atoms, 3]."""
    total, a, b, c, first, second = 0.0, np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for t in range(atoms.shape[0]):
        i, j, k, m = atoms[t, 0], atoms[t, 1], atoms[t, 2], atoms[t, 3]
        for d in range(3):
            a[d], b[d], c[d] = x[j, d] - x[i, d], x[k, d] - x[j, d], x[m, d] - x[k, d]
        _cross(a, b, first)
        _cross(b, c, second)
        width = math.sqrt(_dot(b, b))
        energy, slope = _turn_energy(form, math.atan2(width * _dot(a, second), _dot(first, second)), parameters[t])
        total += energy
        for_i, for_m = slope * width / _dot(first, first), slope * width / _dot(second, second)
        along_a, along_c = _dot(a, b) / (width * width), _dot(c, b) / (width * width)
        for d in range(3):
            pull_i, pull_m = for_i * first[d], -for_m * second[d]
            shift = along_a * pull_i - along_c * pull_m
            f[i, d] += pull_i
            f[j, d] -= pull_i + shift
            f[k, d] += shift - pull_m
            f[m, d] += pull_m
    return total


_KERNELS = {2: stretch, 3: bend, 4: turn}


@dataclass(frozen=True)
class BondedTerms:
    """Terms of one form: atoms [terms, atoms of a term] and parameters [terms, parameters], in the order of the formula."""

    form: Form
    atoms: Indices
    parameters: Array

    def __post_init__(self) -> None:
        members, values = SIZES[self.form]
        if self.atoms.shape[1:] != (members,) or self.parameters.shape != (len(self.atoms), values):
            expected = f"atoms [terms, {members}] and parameters [terms, {values}]"
            came = f"atoms {list(self.atoms.shape)} and parameters {list(self.parameters.shape)}"
            raise InputError(Problem(self.form, expected, came, "Give one row for each term."))

    def add_forces(self, positions: Array, forces: Array) -> float:
        """The energy of all terms; their forces are added to `forces` [atoms, 3]."""
        run = _KERNELS[self.atoms.shape[1]]
        return float(run(_FORMS.index(self.form), positions, self.atoms, self.parameters, forces))

    def energy(self, positions: Tensor) -> Tensor:
        """The same energy in plain torch, differentiable: the oracle of the kernel.  positions: [atoms, 3]; returns []."""
        coordinate = COORDINATES[self.form](positions[torch.from_numpy(self.atoms)])
        return ENERGIES[self.form](coordinate, *torch.from_numpy(self.parameters).T).sum()
