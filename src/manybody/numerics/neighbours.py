"""Verlet neighbour lists of clusters: who is close to whom, in a periodic box.

Atoms are sorted in space and cut into clusters of at most `CLUSTER` that follow each other in memory. A cluster's
neighbours are all atoms within the list radius of any of its members, found through cells. Atoms near a face get
ghosts, their periodic images, so that the search and the force loop know no boundary. Every pair is found from both
sides (a full list): each force is summed in one place, in one order, whatever the number of threads.

Layout: coordinates are [3, atoms], so that each component is contiguous. After S. Páll and B. Hess, Comput. Phys.
Commun. 184, 2641 (2013), with single atoms instead of clusters as neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manybody.numerics.jit import kernel

CLUSTER = 8


class ClusterList(NamedTuple):
    """A neighbour list over `extended` positions: the atoms, sorted, followed by their ghosts.

    source [ghosts]: the atom that a ghost images; shift [3, ghosts]: by how much.
    first [clusters + 1]: the atoms of cluster c are first[c] .. first[c + 1] - 1.
    start [clusters + 1]: its neighbours are entries[start[c]] .. entries[start[c + 1] - 1], indices into `extended`;
    the cluster's own atoms are not among them.
    """

    source: np.ndarray
    shift: np.ndarray
    first: np.ndarray
    start: np.ndarray
    entries: np.ndarray
    widest: int


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
def _bin(value: float, width: float, bins: int) -> int:
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
        column = _bin(x[0, i], box[0] / columns_x, columns_x) * columns_y + _bin(x[1, i], box[1] / columns_y, columns_y)
        keys[i] = column * slices + _bin(x[2, i], box[2] / slices, slices)
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
def find_ghosts(x: np.ndarray, box: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The periodic images within `reach` of the box: source [ghosts], shift [3, ghosts]. `reach` is at most the box."""
    n = x.shape[1]
    size = 0
    capacity = 2 * n + 64
    source, shift = np.empty(capacity, np.int32), np.empty((3, capacity))
    for i in range(n):
        for a in range(-1, 2):
            if not -reach <= x[0, i] + a * box[0] < box[0] + reach:
                continue
            for b in range(-1, 2):
                if not -reach <= x[1, i] + b * box[1] < box[1] + reach:
                    continue
                for c in range(-1, 2):
                    if not -reach <= x[2, i] + c * box[2] < box[2] + reach or (a == 0 and b == 0 and c == 0):
                        continue
                    if size == capacity:
                        capacity *= 2
                        more_source, more_shift = np.empty(capacity, np.int32), np.empty((3, capacity))
                        more_source[:size], more_shift[:, :size] = source, shift
                        source, shift = more_source, more_shift
                    source[size] = i
                    shift[0, size], shift[1, size], shift[2, size] = a * box[0], b * box[1], c * box[2]
                    size += 1
    return source[:size].copy(), shift[:, :size].copy()


@kernel
def extend(x: np.ndarray, source: np.ndarray, shift: np.ndarray, extended: np.ndarray) -> None:
    """Write positions [3, atoms] and their ghosts into `extended` [3, atoms + ghosts]."""
    n = x.shape[1]
    for d in range(3):
        for i in range(n):
            extended[d, i] = x[d, i]
        for g in range(source.size):
            extended[d, n + g] = x[d, source[g]] + shift[d, g]


@kernel
def _cells(extended: np.ndarray, box: np.ndarray, reach: float, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extended atoms sorted into cubic cells that follow each other along z: order, start of each cell, cells a side."""
    shape = np.empty(3, np.int64)
    for d in range(3):
        shape[d] = max(1, int(np.ceil((box[d] + 2 * reach) / width)))
    keys = np.empty(extended.shape[1], np.int32)
    for i in range(extended.shape[1]):
        key = 0
        for d in range(3):
            key = key * shape[d] + _bin(extended[d, i] + reach, width, shape[d])
        keys[i] = key
    order, start = counting_sort(keys, shape[0] * shape[1] * shape[2])
    return order, start, shape


@kernel
def _outside(low: float, high: float, cell: int, width: float, reach: float) -> float:
    """The distance along one axis between an interval and a cell of the grid that starts at -reach."""
    left = cell * width - reach
    return max(0.0, left - high, low - left - width)


@kernel
def _candidates(
    low: np.ndarray, high: np.ndarray, reach: float, width: float, shape: np.ndarray, start: np.ndarray, sorted_: np.ndarray,
    order: np.ndarray, own_low: int, own_high: int, near: np.ndarray, names: np.ndarray,
) -> int:  # fmt: skip
    """Copy the atoms of all cells that come within `reach` of the box low..high into `near`, their indices into `names`."""
    count = 0
    x0, x1 = _bin(low[0], width, shape[0]), _bin(high[0] + 2 * reach, width, shape[0])
    y0, y1 = _bin(low[1], width, shape[1]), _bin(high[1] + 2 * reach, width, shape[1])
    for a in range(x0, x1 + 1):
        dx = _outside(low[0], high[0], a, width, reach)
        for b in range(y0, y1 + 1):
            dy = _outside(low[1], high[1], b, width, reach)
            room = reach * reach - dx * dx - dy * dy
            if room < 0.0:
                continue
            along = np.sqrt(room)
            row = (a * shape[1] + b) * shape[2]
            z0 = _bin(low[2] + reach - along, width, shape[2])
            z1 = _bin(high[2] + reach + along, width, shape[2])
            for k in range(start[row + z0], start[row + z1 + 1]):
                name = order[k]
                near[0, count], near[1, count], near[2, count] = sorted_[0, k], sorted_[1, k], sorted_[2, k]
                names[count] = name
                count += not own_low <= name < own_high  # the next one overwrites what is not wanted
    return count


@kernel
def _closest(near: np.ndarray, count: int, x: np.ndarray, low: int, high: int, closest: np.ndarray) -> None:
    """The smallest squared distance of each candidate to the atoms low .. high - 1: closest [count]."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    for k in range(count):
        closest[k] = np.inf
    for i in range(low, high):
        xi, yi, zi = x[0, i], x[1, i], x[2, i]
        for k in range(count):
            dx, dy, dz = near_x[k] - xi, near_y[k] - yi, near_z[k] - zi
            r2 = dx * dx + dy * dy + dz * dz
            best = closest[k]
            closest[k] = r2 if r2 < best else best


@kernel
def build_list(x: np.ndarray, box: np.ndarray, first: np.ndarray, reach: float) -> tuple[ClusterList, np.ndarray]:
    """The neighbour list of sorted, wrapped positions [3, atoms], and their extended positions.

    `reach` is the list radius (cutoff and skin), at most the box. Cost: O(atoms).
    """
    n = x.shape[1]
    source, shift = find_ghosts(x, box, reach)
    extended = np.empty((3, n + source.size))
    extend(x, source, shift, extended)
    width = max(reach / 3, (box[0] * box[1] * box[2] / n) ** (1 / 3))
    order, cell_start, shape = _cells(extended, box, reach, width)
    sorted_ = np.empty_like(extended)
    for d in range(3):
        for k in range(order.size):
            sorted_[d, k] = extended[d, order[k]]
    near, names = np.empty((3, order.size + 1)), np.empty(order.size + 1, np.int32)
    closest = np.empty(order.size + 1)
    clusters = first.size - 1
    start = np.zeros(clusters + 1, np.int64)
    volume = box[0] * box[1] * box[2]
    entries = np.empty(int(clusters * (64 + 8 * reach**3 * n / volume)), np.int32)
    low, high = np.empty(3), np.empty(3)
    size, widest = 0, 0
    for c in range(clusters):
        for d in range(3):
            low[d] = x[d, first[c] : first[c + 1]].min()
            high[d] = x[d, first[c] : first[c + 1]].max()
        count = _candidates(low, high, reach, width, shape, cell_start, sorted_, order, first[c], first[c + 1], near, names)
        if size + count > entries.size:
            more = np.empty(2 * entries.size + count, np.int32)
            more[:size] = entries[:size]
            entries = more
        _closest(near, count, x, first[c], first[c + 1], closest)
        for k in range(count):
            entries[size] = names[k]
            size += closest[k] < reach * reach
        start[c + 1] = size
        widest = max(widest, size - start[c])
    return ClusterList(source, shift, first, start, entries[:size].copy(), widest), extended


@kernel
def moved(x: np.ndarray, reference: np.ndarray, limit: float) -> int:
    """How many atoms are further than `limit` from where they were; a NaN counts as moved."""
    count = 0
    x0, x1, x2 = x[0], x[1], x[2]
    r0, r1, r2 = reference[0], reference[1], reference[2]
    for i in range(x.shape[1]):
        dx, dy, dz = x0[i] - r0[i], x1[i] - r1[i], x2[i] - r2[i]
        count += not dx * dx + dy * dy + dz * dz <= limit * limit
    return count
