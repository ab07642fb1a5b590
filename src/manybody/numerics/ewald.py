"""Exact Coulomb energy of a periodic system: the Ewald sum.

Conventions shared by everything electrostatic here: positions and cell in one length unit, charges in one charge unit,
energies in charge^2 / length times `coulomb_constant`. `cell` is [3, 3], its rows the lattice vectors. With
s_i = r_i cell^-1, k = 2 pi m cell^-T for integer m, V = |det cell|, Q = sum q_i, alpha in 1/length:

    U = U_direct + U_reciprocal - alpha / sqrt(pi) sum q_i^2 - pi Q^2 / (2 V alpha^2) + U_surface

Source: P. P. Ewald, Ann. Phys. 369 (1921) 253; S. W. de Leeuw, J. W. Perram, E. R. Smith, Proc. R. Soc. A 373 (1980)
27 (surface term); the charged background as in J. S. Hub et al., J. Chem. Theory Comput. 10 (2014) 381, equation 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.ewald_kernels import direct_kernel, force_kernel, structure_kernel

Array = NDArray[np.float64]

# --- the formula -----------------------------------------------------------------------------------------------


def direct_energy(positions: Tensor, charges: Tensor, cell: Tensor, alpha: float, cutoff: float) -> Tensor:
    """Screened pairs: 1/2 sum_ij sum_n' q_i q_j erfc(alpha r) / r with r = |r_i - r_j + n cell| below `cutoff`.

    positions: [atoms, 3]; charges: [atoms]; cell: [3, 3]; returns [], charge^2 / length. The prime leaves out i = j at
    n = 0. Every image within the cutoff counts, so the cutoff may exceed half the cell. Differentiable. O(atoms^2).
    """
    images = torch.as_tensor(image_shifts(cell.detach().cpu().numpy(), cutoff), dtype=cell.dtype, device=cell.device)
    inverse = torch.linalg.inv(cell)
    separation = positions[:, None, :] - positions[None, :, :]
    # The nearest-image shift is a constant of the derivative: it is an integer.
    separation = separation - (torch.round(separation.detach() @ inverse.detach())) @ cell
    vectors = separation[None] + (images @ cell)[:, None, None, :]
    square = (vectors**2).sum(-1)
    inside = (square < cutoff**2) & (square > 0)
    distance = torch.sqrt(torch.where(inside, square, torch.ones_like(square)))
    pairs = torch.erfc(alpha * distance) / distance * (charges[:, None] * charges[None, :])[None]
    return 0.5 * torch.where(inside, pairs, torch.zeros_like(pairs)).sum()


def reciprocal_energy(positions: Tensor, charges: Tensor, cell: Tensor, alpha: float, modes: Tensor) -> Tensor:
    """Smooth part: (2 pi / V) sum_k exp(-k^2 / 4 alpha^2) / k^2 |sum_i q_i exp(i k r_i)|^2 over all k of `modes`.

    positions: [atoms, 3]; charges: [atoms]; cell: [3, 3]; modes: [modes, 3] integers, 0 left out, one of each pair
    +m, -m (each counts twice); returns [], charge^2 / length. Differentiable in all three. O(atoms modes).
    """
    k = 2 * math.pi * modes.to(cell.dtype) @ torch.linalg.inv(cell).T
    square = (k**2).sum(-1)
    phase = positions @ k.T
    cosine = (charges[:, None] * torch.cos(phase)).sum(0)
    sine = (charges[:, None] * torch.sin(phase)).sum(0)
    volume = torch.abs(torch.linalg.det(cell))
    return 2 * (2 * math.pi / volume) * (torch.exp(-square / (4 * alpha**2)) / square * (cosine**2 + sine**2)).sum()


def self_energy(charges: Tensor, alpha: float) -> Tensor:
    """Interaction of each smeared charge with itself, taken off: -alpha / sqrt(pi) sum q_i^2.  charges: [atoms]."""
    return -alpha / math.sqrt(math.pi) * (charges**2).sum()


def background_energy(charges: Tensor, cell: Tensor, alpha: float) -> Tensor:
    """Uniform background that neutralises a charged cell: -pi (sum q)^2 / (2 V alpha^2); zero for a neutral one."""
    return -math.pi / (2 * alpha**2) * charges.sum() ** 2 / torch.abs(torch.linalg.det(cell))


def surface_energy(positions: Tensor, charges: Tensor, cell: Tensor, permittivity: float) -> Tensor:
    """Energy of the sphere's surface in a medium: 2 pi |sum q_i r_i|^2 / ((2 permittivity + 1) V).

    `permittivity` 1 is vacuum, infinity (tin foil) gives zero. `positions` must be whole (not wrapped), and the cell
    neutral, or the dipole moment depends on the choice of image or origin.  Returns [], charge^2 / length.
    """
    dipole = (charges[:, None] * positions).sum(0)
    return 2 * math.pi / (2 * permittivity + 1) * (dipole**2).sum() / torch.abs(torch.linalg.det(cell))


def ewald_energy(
    positions: Tensor, charges: Tensor, cell: Tensor, parameters: EwaldParameters, permittivity: float = math.inf
) -> Tensor:
    """The whole Ewald energy, differentiable on any device: the oracle of every faster path.  Returns [].

    positions: [atoms, 3]; charges: [atoms]; cell: [3, 3]. Memory grows as atoms^2: meant for some hundred atoms.
    """
    alpha = parameters.alpha
    modes = torch.as_tensor(half_modes(cell.detach().cpu().numpy(), parameters.mode_cutoff), device=cell.device)
    energy = direct_energy(positions, charges, cell, alpha, parameters.cutoff)
    energy = energy + reciprocal_energy(positions, charges, cell, alpha, modes)
    energy = energy + self_energy(charges, alpha) + background_energy(charges, cell, alpha)
    if math.isinf(permittivity):
        return energy
    return energy + surface_energy(positions, charges, cell, permittivity)


# --- lattices --------------------------------------------------------------------------------------------------


def inverse_cell(cell: Array) -> Array:
    """The inverse of a cell [3, 3]: positions times it are fractional, its columns the reciprocal vectors over 2 pi."""
    return np.asarray(np.linalg.inv(cell), dtype=np.float64)


def cell_heights(cell: Array) -> Array:
    """Distances between opposite faces, [3]: what a cutoff is compared with in a triclinic cell."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def image_shifts(cell: Array, cutoff: float) -> NDArray[np.int64]:
    """Integer shifts that can bring a nearest image within `cutoff`, [images, 3].

    Fractional differences are wrapped to at most 1/2, so shift n along an axis leaves at least (|n| - 1/2) heights.
    """
    reach = np.floor(cutoff / cell_heights(cell) + 0.5).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def half_modes(cell: Array, mode_cutoff: float) -> NDArray[np.int64]:
    """Integer m with 0 < |2 pi m cell^-T| <= `mode_cutoff`, one of each pair +m, -m; [modes, 3]."""
    reach = np.floor(mode_cutoff * np.linalg.norm(cell, axis=1) / (2 * math.pi)).astype(int)
    axes = [np.arange(0, reach[0] + 1), np.arange(-reach[1], reach[1] + 1), np.arange(-reach[2], reach[2] + 1)]
    m = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    x, y, z = m.T
    m = m[(x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))]
    k = 2 * math.pi * m @ np.linalg.inv(cell).T
    return np.asarray(m[(k**2).sum(-1) <= mode_cutoff**2])


# --- parameters ------------------------------------------------------------------------------------------------


def direct_error(charges: Array, volume: float, alpha: float, cutoff: float) -> float:
    """Root-mean-square force error of cutting the direct sum, 2 q2 exp(-(alpha r_c)^2) / sqrt(N r_c V), q2 = sum q_i^2.

    For uncorrelated charges. Source: J. Kolafa, J. W. Perram, Mol. Simul. 9 (1992) 351, equation 18.
    """
    return 2 * float((charges**2).sum()) * math.exp(-((alpha * cutoff) ** 2)) / math.sqrt(len(charges) * cutoff * volume)


def reciprocal_error(charges: Array, volume: float, alpha: float, mode_cutoff: float) -> float:
    """Root-mean-square force error of cutting the mode sum at k_c, in the same approximation.

    2 q2 alpha / L sqrt(1 / (pi n N)) exp(-(k_c / 2 alpha)^2) with n = k_c L / 2 pi, L = V^(1/3): Kolafa and Perram's
    equation 32 with the sum over modes replaced by its integral.
    """
    edge = volume ** (1 / 3)
    n = mode_cutoff * edge / (2 * math.pi)
    scale = 2 * float((charges**2).sum()) * alpha / edge * math.sqrt(1 / (math.pi * n * len(charges)))
    return float(scale * math.exp(-((mode_cutoff / (2 * alpha)) ** 2)))


def _solve(error: float, estimate: Array, abscissa: Array) -> float:
    """The smallest abscissa at which a falling estimate meets the error."""
    below = np.flatnonzero(estimate <= error)
    return float(abscissa[below[0]]) if len(below) else float(abscissa[-1])


@dataclass(frozen=True)
class EwaldParameters:
    """Splitting parameter (1/length), direct cutoff (length) and mode cutoff (1/length)."""

    alpha: float
    cutoff: float
    mode_cutoff: float

    def __post_init__(self) -> None:
        for name in ("alpha", "cutoff", "mode_cutoff"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(Problem(name, "a positive finite number", f"{value!r}", "Use EwaldParameters.for_accuracy."))

    @classmethod
    def for_accuracy(cls, charges: Array, cell: Array, force_error: float, cutoff: float | None = None) -> EwaldParameters:
        """Parameters whose estimated root-mean-square force error stays below `force_error` (charge^2 / length^2).

        Half of the error goes to each sum. Without a cutoff the one that balances both sums' work is taken:
        alpha = sqrt(pi) (c N / V^2)^(1/6), c = 5.5 the cost of a pair over that of a mode (D. Fincham, Mol. Simul. 13
        (1994) 1).
        """
        if not force_error > 0:
            raise InputError(Problem("force_error", "a positive number", f"{force_error!r}", "Ask for 1e-4 or so."))
        charges, cell = np.asarray(charges, float), np.asarray(cell, float)
        volume, half = abs(float(np.linalg.det(cell))), force_error / math.sqrt(2)
        steps = np.linspace(0.5, 9.0, 1701)  # alpha r_c and k_c / 2 alpha: erfc(9) is below 1e-36
        if cutoff is None:
            alpha = math.sqrt(math.pi) * (5.5 * len(charges) / volume**2) ** (1 / 6)
            cutoff = _solve(half, np.array([direct_error(charges, volume, alpha, s / alpha) for s in steps]), steps / alpha)
        else:
            reach = np.array([direct_error(charges, volume, s / cutoff, cutoff) for s in steps])
            alpha = _solve(half, reach, steps / cutoff)
        reach = np.array([reciprocal_error(charges, volume, alpha, 2 * alpha * s) for s in steps])
        return cls(alpha, cutoff, _solve(half, reach, 2 * alpha * steps))


# --- the compiled path -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coulomb:
    """Energy [], forces [atoms, 3], potentials [atoms] and virial [3, 3] of a set of charges.

    potentials: d U / d q_i. virial: -d U / d strain; its trace over three volumes is the Coulomb part of the pressure.
    """

    energy: float
    forces: Array
    potentials: Array
    virial: Array


def checked(positions: Array, charges: Array, cell: Array) -> tuple[Array, Array, Array]:
    """The three arrays in double precision and contiguous; raises InputError for a wrong shape, NaN or a flat cell."""
    positions, charges, cell = (np.ascontiguousarray(array, dtype=np.float64) for array in (positions, charges, cell))
    atoms = len(positions)
    expected = {"positions": (positions, (atoms, 3)), "charges": (charges, (atoms,)), "cell": (cell, (3, 3))}
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise InputError(Problem(name, f"shape {shape}", f"shape {array.shape}", "One row for each atom."))
        if not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise InputError(Problem(f"{name}{where}", "a finite number", f"{array[tuple(where)]}", "The run has exploded."))
    if abs(np.linalg.det(cell)) < 1e-12 * np.linalg.norm(cell) ** 3:
        raise InputError(Problem("cell", "three independent lattice vectors", f"{cell.tolist()}", "Give a cell with a volume."))
    return positions, charges, cell


def ewald(
    positions: Array,
    charges: Array,
    cell: Array,
    parameters: EwaldParameters,
    coulomb_constant: float = 1.0,
    permittivity: float = math.inf,
) -> Coulomb:
    """Energy, forces, potentials and virial by the Ewald sum, compiled: some thousand atoms to any accuracy.

    positions: [atoms, 3]; charges: [atoms]; cell: [3, 3]; permittivity: of the medium around the crystal, infinity for
    tin foil (needs whole positions and a neutral cell otherwise). Raises InputError for wrong input.
    """
    positions, charges, cell = checked(positions, charges, cell)
    alpha, volume, total = parameters.alpha, abs(float(np.linalg.det(cell))), float(charges.sum())
    inverse = inverse_cell(cell)
    shifts = image_shifts(cell, parameters.cutoff)
    forces, potentials, virial = direct_kernel(positions, charges, cell, inverse, shifts, alpha, parameters.cutoff)

    modes = half_modes(cell, parameters.mode_cutoff)
    k = 2 * math.pi * modes @ inverse.T
    square = (k**2).sum(-1)
    weight = 2 * (2 * math.pi / volume) * np.exp(-square / (4 * alpha**2)) / square
    fractional = positions @ inverse
    cosine, sine = structure_kernel(fractional, charges, modes)
    force_kernel(fractional, charges, modes, k, weight * cosine, weight * sine, forces, potentials)
    energies = weight * (cosine**2 + sine**2)
    virial = virial + energies.sum() * np.eye(3) - np.einsum("m,ma,mb->ab", 2 * energies * (1 / square + 0.25 / alpha**2), k, k)

    background = -math.pi / (2 * alpha**2 * volume)
    potentials += -2 * alpha / math.sqrt(math.pi) * charges + 2 * background * total
    virial += background * total**2 * np.eye(3)
    energy = 0.5 * float(charges @ potentials)
    if not math.isinf(permittivity):
        energy += _surface(positions, charges, volume, permittivity, forces, potentials, virial)
    c = coulomb_constant
    return Coulomb(c * energy, c * forces, c * potentials, c * virial)


def _surface(
    positions: Array, charges: Array, volume: float, permittivity: float, forces: Array, potentials: Array, virial: Array
) -> float:
    """Adds the derivatives of `surface_energy` in place, and returns it."""
    if abs(charges.sum()) > 1e-9 * np.abs(charges).sum():
        raise InputError(
            Problem("charges", "a neutral cell", f"net charge {charges.sum():g}", "A charged cell has no dipole: use tin foil.")
        )
    strength = 4 * math.pi / ((2 * permittivity + 1) * volume)
    dipole = charges @ positions
    forces -= strength * charges[:, None] * dipole
    potentials += strength * positions @ dipole
    energy = 0.5 * strength * float(dipole @ dipole)
    virial += energy * np.eye(3) - strength * np.outer(dipole, dipole)
    return energy
