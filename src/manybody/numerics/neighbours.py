"""Verlet neighbour lists of clusters (`manybody.numerics.clusters`): who is close to whom, in a periodic box.

There are two lists:

- of clusters near each cluster, by their bounding boxes, with a wide skin; it needs the sort and lasts long;
- of atoms near each cluster, picked from the first with a narrow skin; it is what forces are computed with.

Every pair is found from both sides (a full list): each force is summed in one place, in one order, whatever the number
of threads, which share the clusters in stretches of about equal work. After S. Páll and B. Hess, Comput. Phys. Commun.
184, 2641 (2013), with single atoms as neighbours and a list that holds every pair twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from manybody.numerics.clusters import CLUSTER, Clusters, bin_of, bounds, counting_sort
from manybody.numerics.jit import kernel, threaded_kernel
from manybody.numerics.registers import LANES, bits_below, close_bits, copy_chosen, count_bits


class Near(NamedTuple):
    """For each cluster c, entries[start[c]] .. entries[stop[c] - 1]: the clusters, or the atoms, near it.

    The cluster itself and its own atoms are not among them. `widest` is the longest of these stretches; parts
    [threads + 1] are the clusters that each thread begins with, and their number.
    """

    start: np.ndarray
    stop: np.ndarray
    entries: np.ndarray
    widest: int
    parts: np.ndarray


class Members(NamedTuple):
    """For each cluster c, its neighbours entries[start[c]] .. entries[stop[c] - 1]: where in memory a cluster near it begins.

    bits: which of that cluster's atoms are near, the lowest for the first. `widest` is the largest number of atoms near one
    cluster, parts as in `Near`.
    """

    start: np.ndarray
    stop: np.ndarray
    entries: np.ndarray
    bits: np.ndarray
    widest: int
    parts: np.ndarray


class Sorted(NamedTuple):
    """Atoms sorted in space, with their lists: what dynamics carries from step to step.

    x, v, f [3, atoms]; names [atoms]: which atom each is; extended: positions with those of the images; sorted_at, listed_at
    [3, atoms]: where they were when they were sorted, and when `near` was picked from `candidates`.
    """

    x: np.ndarray
    v: np.ndarray
    f: np.ndarray
    names: np.ndarray
    clusters: Clusters
    extended: np.ndarray
    candidates: Near
    near: Members
    sorted_at: np.ndarray
    listed_at: np.ndarray


@kernel
def _near_home(
    rows: np.ndarray, start: np.ndarray, order: np.ndarray, edges: np.ndarray, found: np.ndarray, names: np.ndarray
) -> int:
    """Copy the bounding boxes of all clusters in the given rows of cells (first, last cell) next to each other."""
    count = 0
    for row in range(rows.shape[0]):
        for k in range(start[rows[row, 0]], start[rows[row, 1] + 1]):
            names[count] = order[k]
            for d in range(6):
                found[d, count] = edges[d, order[k]]
            count += 1
    return count


@kernel
def _box_distances(edges: np.ndarray, c: int, found: np.ndarray, names: np.ndarray, count: int, distance2: np.ndarray) -> None:
    """Squared distances of `count` bounding boxes in `found` [6, count] to that of cluster c; infinite for c itself.

    So are those that fill up a register.
    """
    x0, y0, z0, x1, y1, z1 = edges[0, c], edges[1, c], edges[2, c], edges[3, c], edges[4, c], edges[5, c]
    low_x, low_y, low_z, high_x, high_y, high_z = found[0], found[1], found[2], found[3], found[4], found[5]
    for k in range(count):
        dx, dy, dz = low_x[k] - x1, low_y[k] - y1, low_z[k] - z1
        ex, ey, ez = x0 - high_x[k], y0 - high_y[k], z0 - high_z[k]
        dx, dy, dz = dx if dx > ex else ex, dy if dy > ey else ey, dz if dz > ez else ez
        dx, dy, dz = dx if dx > 0.0 else 0.0, dy if dy > 0.0 else 0.0, dz if dz > 0.0 else 0.0
        distance2[k] = np.inf if names[k] == c else dx * dx + dy * dy + dz * dz
    distance2[count : count + LANES] = np.inf


@kernel
def _rows_around(cell: int, shape: np.ndarray) -> np.ndarray:
    """The first and last cells of the rows along z that hold the 27 cells around one: [rows, 2]."""
    a, b, e = cell // (shape[1] * shape[2]), cell // shape[2] % shape[1], cell % shape[2]
    rows = np.empty((9, 2), np.int64)
    count = 0
    for i in range(max(0, a - 1), min(shape[0], a + 2)):
        for j in range(max(0, b - 1), min(shape[1], b + 2)):
            row = (i * shape[1] + j) * shape[2]
            rows[count, 0], rows[count, 1] = row + max(0, e - 1), row + min(shape[2] - 1, e + 1)
            count += 1
    return rows[:count]


@kernel
def shared_out(work: np.ndarray, threads: int) -> np.ndarray:
    """Where each of `threads` begins so that all have about the same of `work` [items]: [threads + 1], the last is items."""
    total, done, part = work.sum(), 0, 1
    parts = np.zeros(threads + 1, np.int64)
    for item in range(work.size):
        done += work[item]
        while part < threads and done * threads >= part * total:
            parts[part] = item + 1
            part += 1
    parts[part:] = work.size
    return parts


class _Cells(NamedTuple):
    """Clusters and images sorted by their centres into cells: order[start[k]] .. order[start[k + 1] - 1] are in cell k.

    shape [3]: the number of cells each way; edges [6, clusters + images]: all bounding boxes.
    """

    shape: np.ndarray
    order: np.ndarray
    start: np.ndarray
    edges: np.ndarray


@kernel
def _sorted_into_cells(extended: np.ndarray, clusters: Clusters, reach: float) -> _Cells:
    """Cells so wide that what is within `reach` of a cluster lies in the 27 around its own."""
    edges = bounds(extended, clusters.first)
    total = edges.shape[1]
    shape, width, low = np.empty(3, np.int64), np.empty(3), np.empty(3)
    cells = 1
    for d in range(3):
        low[d], high, extent = np.inf, -np.inf, 0.0
        for c in range(total):
            low[d], high = min(low[d], edges[d, c]), max(high, edges[3 + d, c])
            extent = max(extent, edges[3 + d, c] - edges[d, c])
        shape[d] = max(1, min(256, int((high - low[d]) / (reach + extent))))
        width[d] = (high - low[d]) / shape[d]
        cells *= shape[d]
    keys = np.empty(total, np.int32)
    for c in range(total):
        key = 0
        for d in range(3):
            key = key * shape[d] + bin_of(0.5 * (edges[d, c] + edges[3 + d, c]) - low[d], width[d], shape[d])
        keys[c] = key
    order, start = counting_sort(keys, cells)
    return _Cells(shape, order, start, edges)


@kernel
def _work_of_cells(cells: _Cells, real: int) -> np.ndarray:
    """How many distances each cell asks for, its clusters to all around it: [cells]."""
    work = np.zeros(cells.start.size - 1, np.int64)
    for cell in range(work.size):
        own = around = 0
        for k in range(cells.start[cell], cells.start[cell + 1]):
            own += cells.order[k] < real
        if own:
            rows = _rows_around(cell, cells.shape)
            for row in range(rows.shape[0]):
                around += cells.start[rows[row, 1] + 1] - cells.start[rows[row, 0]]
        work[cell] = own * around
    return work


@kernel
def _search_cells(cells: _Cells, low: int, high: int, reach: float, near: Near, size: int) -> None:
    """Write the clusters near those in cells low .. high - 1 into `near`, from entry `size` on."""
    real, total = near.start.size, cells.order.size
    found, names, distance2 = np.empty((6, total)), np.empty(total + LANES, np.int32), np.empty(total + LANES)
    for cell in range(low, high):
        count = -1
        for k in range(cells.start[cell], cells.start[cell + 1]):
            c = cells.order[k]
            if c >= real:
                continue
            if count < 0:
                count = _near_home(_rows_around(cell, cells.shape), cells.start, cells.order, cells.edges, found, names)
            _box_distances(cells.edges, c, found, names, count, distance2)
            near.start[c] = size
            for m in range(0, count, LANES):
                bits = bits_below(distance2, m, reach * reach)
                copy_chosen(names, m, bits, 0, near.entries, size)
                size += count_bits(bits)
            near.stop[c] = size


@threaded_kernel
def _search_all(cells: _Cells, parts: np.ndarray, reach: float, near: Near, room: np.ndarray) -> None:
    """`_search_cells` by as many threads as there are parts."""
    if parts.size == 2:
        _search_cells(cells, 0, parts[1], reach, near, 0)
    else:
        for part in prange(parts.size - 1):
            _search_cells(cells, parts[part], parts[part + 1], reach, near, room[part])


@kernel
def near_clusters(extended: np.ndarray, clusters: Clusters, reach: float, threads: int) -> Near:
    """The clusters and images whose bounding boxes come within `reach` of each cluster's. Cost: O(atoms)."""
    real = clusters.first.size - 1 - clusters.source.size
    cells = _sorted_into_cells(extended, clusters, reach)
    work = _work_of_cells(cells, real)
    parts = shared_out(work, threads)
    room = _room(work, parts)
    near = Near(np.zeros(real, np.int64), np.zeros(real, np.int64), np.empty(room[-1], np.int32), 0, parts)
    _search_all(cells, parts, reach, near, room)
    return _measured(near, threads)


@kernel
def _room(work: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Where the entries of each part begin if every item of `work` needs that many, and a register to spare: [parts + 1]."""
    room = np.zeros(parts.size, np.int64)
    for part in range(parts.size - 1):
        room[part + 1] = room[part] + work[parts[part] : parts[part + 1]].sum() + LANES
    return room


@kernel
def _measured(near: Near, threads: int) -> Near:
    """The list with its longest stretch, and with its clusters shared out among the threads."""
    lengths = near.stop - near.start
    return Near(near.start, near.stop, near.entries, max(0, lengths.max()), shared_out(lengths + CLUSTER, threads))


@kernel
def _in_single(extended: np.ndarray, count: int, reach: float) -> tuple[np.ndarray, float]:
    """Positions in single precision, and a reach so much longer that nothing within `reach` is missed for it.

    With coordinates up to M and u = 2^-24, a coordinate is off by u M, a distance by 2 sqrt(3) u M, and what is computed with
    it by less than 4 u reach. The last columns, beyond everything, do not count.
    """
    single = np.empty(extended.shape, np.float32)
    largest = 0.0
    for d in range(3):
        values, rounded = extended[d], single[d]
        for i in range(values.size):
            rounded[i] = values[i]
        for i in range(count):
            size = abs(values[i])
            largest = size if size > largest else largest
    return single, reach + 4.0 * 2.0**-24 * (largest + reach)


@kernel
def _search_members(
    single: np.ndarray, first: np.ndarray, candidates: Near, low: int, high: int, reach: float, near: Members, size: int,
    count: np.ndarray,
) -> None:  # fmt: skip
    """Write what is near clusters low .. high - 1 into `near`, from entry `size` on; how many atoms into `count`."""
    own = np.empty((3, CLUSTER), np.float32)
    x, y, z = single[0], single[1], single[2]
    for c in range(low, high):
        for d in range(3):
            for k in range(CLUSTER):  # filled up with the last atom, which changes no minimum
                own[d, k] = single[d, min(first[c] + k, first[c + 1] - 1)]
        near.start[c], found = size, 0
        for m in range(candidates.start[c], candidates.stop[c]):
            begin = first[candidates.entries[m]]
            all_of_it = (1 << (first[candidates.entries[m] + 1] - begin)) - 1
            bits = close_bits(x, y, z, begin, own, reach * reach) & all_of_it
            near.entries[size], near.bits[size] = begin, bits
            size += bits != 0
            found += count_bits(bits)
        near.stop[c], count[c] = size, found


@threaded_kernel
def _search_all_members(
    single: np.ndarray, first: np.ndarray, candidates: Near, reach: float, near: Members, room: np.ndarray, count: np.ndarray
) -> None:
    """`_search_members` by as many threads as there are parts."""
    parts = candidates.parts
    if parts.size == 2:
        _search_members(single, first, candidates, 0, parts[1], reach, near, 0, count)
    else:
        for part in prange(parts.size - 1):
            _search_members(single, first, candidates, parts[part], parts[part + 1], reach, near, room[part], count)


@kernel
def near_members(extended: np.ndarray, clusters: Clusters, candidates: Near, reach: float) -> Members:
    """The atoms within `reach` of any atom of each cluster, picked from its near clusters, as members of these."""
    real = candidates.start.size
    room = _room(candidates.stop - candidates.start, candidates.parts)
    entries, bits, count = np.empty(room[-1], np.int32), np.empty(room[-1], np.uint8), np.empty(real, np.int64)
    near = Members(np.empty(real, np.int64), np.empty(real, np.int64), entries, bits, 0, candidates.parts)
    single, further = _in_single(extended, clusters.first[-1], reach)
    _search_all_members(single, clusters.first, candidates, further, near, room, count)
    parts = shared_out(count + CLUSTER, candidates.parts.size - 1)
    return Members(near.start, near.stop, entries, bits, max(0, count.max()), parts)


@kernel
def near_atoms(extended: np.ndarray, clusters: Clusters, candidates: Near, reach: float) -> Near:
    """As `near_members`, the atoms one by one."""
    members = near_members(extended, clusters, candidates, reach)
    start, stop = np.empty_like(members.start), np.empty_like(members.stop)
    lanes = np.arange(CLUSTER).astype(np.int32)
    total = 0
    for c in range(start.size):
        for m in range(members.start[c], members.stop[c]):
            total += count_bits(members.bits[m])
    entries = np.empty(total + LANES, np.int32)
    size = 0
    for c in range(start.size):
        start[c] = size
        for m in range(members.start[c], members.stop[c]):
            copy_chosen(lanes, 0, members.bits[m], -members.entries[m], entries, size)
            size += count_bits(members.bits[m])
        stop[c] = size
    return Near(start, stop, entries, members.widest, members.parts)


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
