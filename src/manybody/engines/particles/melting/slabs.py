"""What a box with a crystal and a liquid side by side is made of, along its third edge: compiled sums over all pairs."""

from __future__ import annotations

import math

import numpy as np

from manybody.numerics.jit import kernel

NEIGHBOURS_WITHIN = 1.5  # sigma: between the first two shells of the crystal near melting
ORDERED = 0.4  # halfway between the order of a liquid (0.05) and of a crystal near melting (0.75)


@kernel
def normal_pressure(x: np.ndarray, v: np.ndarray, box: np.ndarray, cutoff: float, bins: int) -> np.ndarray:
    """Pressure along the third edge in slabs [bins], of Lennard-Jones atoms x, v [atoms, 3] of mass 1 in box [3].

    Irving and Kirkwood's: rho v_z^2 of the atoms in a slab, and for each pair within the cutoff the share of f_z z that its
    connecting line has in the slab. In mechanical equilibrium it is the same in every slab.
    """
    found = np.zeros(bins)
    width = box[2] / bins
    for i in range(x.shape[0]):
        found[math.floor(x[i, 2] / width) % bins] += v[i, 2] * v[i, 2]
        for j in range(i):
            dx, dy, dz = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
            dx -= box[0] * round(dx / box[0])
            dy -= box[1] * round(dy / box[1])
            dz -= box[2] * round(dz / box[2])
            r2 = dx * dx + dy * dy + dz * dz
            if r2 > cutoff * cutoff or dz == 0.0:
                continue
            inverse = 1.0 / (r2 * r2 * r2)
            pull = 24.0 * inverse * (2.0 * inverse - 1.0) / r2 * dz * dz
            low = x[i, 2] - max(dz, 0.0)
            high = low + abs(dz)
            for slab in range(math.floor(low / width), math.floor(high / width) + 1):
                share = min(high, (slab + 1) * width) - max(low, slab * width)
                found[slab % bins] += pull * share / (high - low)
    found /= box[0] * box[1] * width
    return found


@kernel
def _order(x: np.ndarray, box: np.ndarray, wave: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each atom: the sum over neighbours of the mean of cos(wave d) over the axes, their number, and who they are."""
    atoms = x.shape[0]
    sums, counts, near = np.zeros(atoms), np.zeros(atoms, np.int64), np.empty((atoms, 32), np.int64)
    for i in range(atoms):
        for j in range(i):
            dx, dy, dz = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
            dx -= box[0] * round(dx / box[0])
            dy -= box[1] * round(dy / box[1])
            dz -= box[2] * round(dz / box[2])
            if dx * dx + dy * dy + dz * dz < NEIGHBOURS_WITHIN * NEIGHBOURS_WITHIN:
                order = (math.cos(wave * dx) + math.cos(wave * dy) + math.cos(wave * dz)) / 3.0
                for a, b in ((i, j), (j, i)):
                    sums[a] += order
                    if counts[a] < 32:
                        near[a, counts[a]] = b
                    counts[a] += 1
    return sums, counts, near


@kernel
def crystalline(x: np.ndarray, box: np.ndarray, constant: float) -> int:
    """How many atoms x [atoms, 3] belong to an fcc crystal of lattice constant `constant` along the edges of box [3].

    cos(4 pi d / constant) is 1 for every neighbour of a perfect crystal; its mean over an atom's neighbours and theirs decides.
    """
    sums, counts, near = _order(x, box, 4.0 * math.pi / constant)
    found = 0
    for i in range(x.shape[0]):
        total, number = sums[i], counts[i]
        for k in range(min(counts[i], 32)):
            total += sums[near[i, k]]
            number += counts[near[i, k]]
        if number > 0 and total > ORDERED * number:
            found += 1
    return found
