"""Atoms sorted in space and cut into clusters of at most `CLUSTER` that follow each other in memory, and their images.

Clusters near a face of a periodic box get images, so that neither a search nor a force loop knows a boundary.
Coordinates are [3, atoms], so that each component is contiguous.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manybody.numerics.jit import kernel

CLUSTER = 8
BEYOND = 1e9  # where atoms stand that only fill up a register


class Clusters(NamedTuple):
    """Clusters of sorted atoms and their images, over `extended` positions: the atoms, then those of the images.

    first [clusters + images + 1]: cluster c has the extended atoms first[c] .. first[c + 1] - 1.
    source [images]: the cluster that an image shows; shift [3, images]: by how much it is displaced.
    """

    first: np.ndarray
    source: np.ndarray
    shift: np.ndarray


@kernel
def counting_sort(keys: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts `keys` (stable), and where each bin starts in it: [keys], [bins + 1]."""
    start = np.zeros(bins + 1, np.int32)
    for i in range(keys.size):
        start[keys[i] + 1] += 1
    for b in range(bins):
        start[b + 1] += start[b]
    order = np.empty(keys.size, np.int32)
    free = start[:-1].copy()
    for i in range(keys.size):
        key = keys[i]
        order[free[key]] = i
        free[key] += 1
    return order, start


@kernel
def wrap(x: np.ndarray, box: np.ndarray) -> None:
    """Bring positions [3, atoms] into the box, in place."""
    for d in range(3):
        edge = box[d]
        for i in range(x.shape[1]):
            x[d, i] -= edge * np.floor(x[d, i] / edge)


@kernel
def bin_of(value: float, width: float, bins: int) -> int:
    """The bin of a coordinate, the outer bins taking what lies beyond; NaN goes to bin 0."""
    scaled = value / width
    if not scaled > 0.0:
        return 0
    return min(int(min(scaled, 1e9)), bins - 1)


@kernel
def sort_in_space(x: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of atoms in columns along z, and the clusters they are cut into: [atoms], first [clusters + 1].

    A column is as wide as a cluster's share of the volume, so that clusters come out about cubic.
    """
    n = x.shape[1]
    side = (CLUSTER * box[0] * box[1] * box[2] / n) ** (1 / 3)
    columns_x, columns_y = max(1, round(box[0] / side)), max(1, round(box[1] / side))
    slices = max(1, int(box[2] / side * CLUSTER))
    keys = np.empty(n, np.int32)
    for i in range(n):
        column = bin_of(x[0, i], box[0] / columns_x, columns_x) * columns_y + bin_of(x[1, i], box[1] / columns_y, columns_y)
        keys[i] = column * slices + bin_of(x[2, i], box[2] / slices, slices)
    order, start = counting_sort(keys, columns_x * columns_y * slices)
    first = np.empty(n + 1, np.int32)
    clusters = 0
    for column in range(columns_x * columns_y):
        low, high = start[column * slices], start[(column + 1) * slices]
        parts = (high - low + CLUSTER - 1) // CLUSTER
        for part in range(parts):  # of equal size, so that no cluster is left with one atom
            first[clusters] = low + (high - low) * part // parts
            clusters += 1
    first[clusters] = n
    return order, first[: clusters + 1].copy()


@kernel
def bounds(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The bounding boxes of clusters, [6, clusters]: lowest x, y, z, then highest."""
    clusters = first.size - 1
    found = np.empty((6, clusters))
    for c in range(clusters):
        for d in range(3):
            low = high = x[d, first[c]]
            for i in range(first[c] + 1, first[c + 1]):
                low, high = min(low, x[d, i]), max(high, x[d, i])
            found[d, c], found[3 + d, c] = low, high
    return found


@kernel
def add_images(x: np.ndarray, box: np.ndarray, first: np.ndarray, reach: float) -> Clusters:
    """The clusters and their periodic images within `reach` of the box; `reach` is at most the box."""
    clusters = first.size - 1
    edges = bounds(x, first)
    source, shift = np.empty(26 * clusters, np.int32), np.empty((3, 26 * clusters))
    ends = np.empty(27 * clusters + 1, np.int32)
    ends[: clusters + 1] = first
    near = np.empty((3, 3), np.bool_)
    count = 0
    for c in range(clusters):
        for d in range(3):
            near[d, 0] = edges[3 + d, c] - box[d] >= -reach
            near[d, 1] = True
            near[d, 2] = edges[d, c] <= reach
        for a in range(3):
            for b in range(3):
                if not (near[0, a] and near[1, b]):
                    continue
                for e in range(3):
                    if near[2, e] and not (a == 1 and b == 1 and e == 1):
                        source[count] = c
                        shift[0, count], shift[1, count], shift[2, count] = (a - 1) * box[0], (b - 1) * box[1], (e - 1) * box[2]
                        ends[clusters + count + 1] = ends[clusters + count] + first[c + 1] - first[c]
                        count += 1
    return Clusters(ends[: clusters + count + 1].copy(), source[:count].copy(), shift[:, :count].copy())


@kernel
def extended_positions(x: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Positions of atoms and images, [3, extended atoms + CLUSTER]; the last ones stand beyond everything."""
    extended = np.empty((3, clusters.first[-1] + CLUSTER))
    extended[:, clusters.first[-1] :] = BEYOND
    extend(x, clusters, extended)
    return extended


@kernel
def extend(x: np.ndarray, clusters: Clusters, extended: np.ndarray) -> None:
    """Write positions [3, atoms] and those of the images into `extended`."""
    real = clusters.first.size - 1 - clusters.source.size
    for d in range(3):
        row, by = extended[d], clusters.shift[d]
        row[: x.shape[1]] = x[d]
        for g in range(clusters.source.size):
            start, to = clusters.first[clusters.source[g]], clusters.first[real + g]
            for k in range(CLUSTER):  # more than the cluster may have: the next one overwrites the rest
                row[to + k] = row[start + k] + by[g]
