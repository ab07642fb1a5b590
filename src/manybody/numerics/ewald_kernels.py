"""Compiled loops of the Ewald sum: its oracle is the formula in `ewald.py`."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from manybody.numerics.jit import parallel_kernel

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@parallel_kernel
def direct_kernel(
    positions: Array, charges: Array, cell: Array, inverse: Array, shifts: Integers, alpha: float, cutoff: float
) -> tuple[Array, Array, Array]:
    """Screened pairs below the cutoff over all images: forces [atoms, 3], potentials [atoms], virial [3, 3]. O(atoms^2)."""
    atoms = len(charges)
    forces, potentials, virials = np.zeros((atoms, 3)), np.zeros(atoms), np.zeros((atoms, 3, 3))
    lattice = shifts.astype(np.float64) @ cell
    for i in prange(atoms):
        d, v = np.empty(3), np.empty(3)
        for j in range(atoms):
            d[:] = positions[i] - positions[j]
            hops = np.rint(d @ inverse)
            d -= hops @ cell
            for n in range(len(shifts)):
                v[:] = d + lattice[n]
                square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
                if square >= cutoff * cutoff or square == 0.0:
                    continue
                r = math.sqrt(square)
                screened = math.erfc(alpha * r) / r
                slope = (screened + 2 * alpha / math.sqrt(math.pi) * math.exp(-(alpha * alpha) * square)) / square
                potentials[i] += charges[j] * screened
                for a in range(3):
                    f = charges[i] * charges[j] * slope * v[a]
                    forces[i, a] += f
                    for b in range(3):
                        virials[i, a, b] += 0.5 * f * v[b]
    return forces, potentials, virials.sum(axis=0)


@parallel_kernel
def structure_kernel(fractional: Array, charges: Array, modes: Integers) -> tuple[Array, Array]:
    """sum_i q_i cos(2 pi m s_i) and the same with sin, [modes] each."""
    cosine, sine = np.zeros(len(modes)), np.zeros(len(modes))
    for m in prange(len(modes)):
        x, y, z = 2 * math.pi * modes[m, 0], 2 * math.pi * modes[m, 1], 2 * math.pi * modes[m, 2]
        c, s = 0.0, 0.0
        for i in range(len(charges)):
            phase = x * fractional[i, 0] + y * fractional[i, 1] + z * fractional[i, 2]
            c += charges[i] * math.cos(phase)
            s += charges[i] * math.sin(phase)
        cosine[m], sine[m] = c, s
    return cosine, sine


@parallel_kernel
def force_kernel(
    fractional: Array, charges: Array, modes: Integers, k: Array, cosine: Array, sine: Array, forces: Array, potentials: Array
) -> None:
    """Adds the forces and potentials of the modes, whose weighted structure factors are given, in place."""
    for i in prange(len(charges)):
        potential, fx, fy, fz = 0.0, 0.0, 0.0, 0.0
        x, y, z = 2 * math.pi * fractional[i, 0], 2 * math.pi * fractional[i, 1], 2 * math.pi * fractional[i, 2]
        for m in range(len(modes)):
            phase = x * modes[m, 0] + y * modes[m, 1] + z * modes[m, 2]
            c, s = math.cos(phase), math.sin(phase)
            potential += cosine[m] * c + sine[m] * s
            slope = cosine[m] * s - sine[m] * c
            fx += slope * k[m, 0]
            fy += slope * k[m, 1]
            fz += slope * k[m, 2]
        potentials[i] += 2 * potential
        forces[i, 0] += 2 * charges[i] * fx
        forces[i, 1] += 2 * charges[i] * fy
        forces[i, 2] += 2 * charges[i] * fz
