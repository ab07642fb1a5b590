"""Histograms of pair distances in periodic boxes."""

from __future__ import annotations

import math

import numpy as np

from manybody.numerics.jit import kernel


@kernel
def pair_distances(frames: np.ndarray, box: float, reach: float, bins: int) -> np.ndarray:
    """Ordered pairs of atoms in each interval of their distance: [frames, bins].

    frames: positions [frames, atoms, 3] in a periodic cube of edge `box`; the `bins` intervals divide 0 .. `reach`
    evenly, `reach` being at most half the box (nearest images only).
    """
    counts = np.zeros((frames.shape[0], bins))
    per_length = bins / reach
    for frame in range(frames.shape[0]):
        x, row = frames[frame], counts[frame]
        for i in range(x.shape[0]):
            for j in range(i):
                r2 = 0.0
                for axis in range(3):
                    gap = x[i, axis] - x[j, axis]
                    gap -= box * np.round(gap / box)
                    r2 += gap * gap
                if r2 < reach * reach:
                    row[min(bins - 1, int(math.sqrt(r2) * per_length))] += 2.0
    return counts
