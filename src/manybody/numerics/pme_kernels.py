"""Compiled loops of particle-mesh Ewald over modes and over excluded pairs; the formulas are in `pme.py`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.jit import exact_kernel, kernel

Array = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


@kernel
def convolve(spectrum: Spectrum, influence: Array) -> None:
    """spectrum *= influence, both [x, y, modes], in place."""
    for x in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            for z in range(spectrum.shape[2]):
                spectrum[x, y, z] *= influence[x, y, z]


@kernel
def mode_virial(
    spectrum: Spectrum, influence: Array, x_modes: Array, y_modes: Array, z_modes: Array, inverse: Array, alpha: float, depth: int
) -> Array:
    """1/2 sum_m G |Q^|^2 (1 - 2 (1 / k^2 + 1 / 4 alpha^2) k k), [3, 3]; depth: mesh points along z (z_modes has half)."""
    virial, k = np.zeros((3, 3)), np.empty(3)
    for x in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            for z in range(spectrum.shape[2]):
                value = spectrum[x, y, z]
                energy = influence[x, y, z] * (value.real * value.real + value.imag * value.imag)
                energy *= 0.5 if z == 0 or 2 * z == depth else 1.0  # -m is not stored
                for a in range(3):
                    k[a] = 2 * math.pi * (x_modes[x] * inverse[a, 0] + y_modes[y] * inverse[a, 1] + z_modes[z] * inverse[a, 2])
                square = k[0] * k[0] + k[1] * k[1] + k[2] * k[2]
                if square == 0.0:
                    continue
                factor = 2.0 * (1.0 / square + 0.25 / (alpha * alpha))
                for a in range(3):
                    virial[a, a] += energy
                    for b in range(3):
                        virial[a, b] -= energy * factor * k[a] * k[b]
    return virial


@exact_kernel
def subtract_excluded(
    positions: Array, charges: Array, cell: Array, inverse: Array, pairs: NDArray[np.int64], kept: Array,
    forces: Array, potentials: Array, virial: Array,
) -> float:  # fmt: skip
    """Take (1 - kept) q_i q_j / r of each pair's nearest image off, in place; returns the energy that this adds."""
    energy = 0.0
    d, hops = np.empty(3), np.empty(3)
    for n in range(len(kept)):
        i, j = pairs[n, 0], pairs[n, 1]
        for a in range(3):
            d[a] = positions[i, a] - positions[j, a]
        for b in range(3):
            hops[b] = np.rint(d[0] * inverse[0, b] + d[1] * inverse[1, b] + d[2] * inverse[2, b])
        for a in range(3):
            d[a] -= hops[0] * cell[0, a] + hops[1] * cell[1, a] + hops[2] * cell[2, a]
        square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        share = (kept[n] - 1.0) / math.sqrt(square)
        energy += share * charges[i] * charges[j]
        potentials[i] += share * charges[j]
        potentials[j] += share * charges[i]
        for a in range(3):
            pull = share * charges[i] * charges[j] / square * d[a]
            forces[i, a] += pull
            forces[j, a] -= pull
            for b in range(3):
                virial[a, b] += pull * d[b]
    return energy
