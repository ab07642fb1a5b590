"""Cluster neighbour lists in any periodic cell, for any cutoff, images of an atom itself included.

The same layout as `neighbours.py` (clusters, ghosts, a full list), for triclinic cells and for cutoffs beyond the cell.
Here a cluster's own atoms are among its neighbours, and the force loop leaves out the pair at distance zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem
from manybody.numerics.clusters import CLUSTER, counting_sort
from manybody.numerics.jit import kernel
from manybody.numerics.neighbours import moved

Array = NDArray[np.float64]
Integers = NDArray[np.int32]

MOST_GHOSTS = 64  # images for each atom, on average, above which a cutoff is taken for a mistake


@dataclass(frozen=True)
class LatticeList:
    """Who is within `reach` of whom.

    order [atoms]: the atoms sorted in space; offset [3, atoms]: what brings sorted atoms into the cell when taken off.
    first [clusters + 1]: sorted atoms of each cluster; source [ghosts], shift [3, ghosts]: ghosts behind the atoms.
    entries[start[c] : start[c + 1]]: the neighbours of cluster c among atoms and ghosts.
    reference [3, atoms]: sorted positions when the list was made; skin: reach less cutoff.
    """

    order: Integers
    offset: Array
    first: Integers
    source: Integers
    shift: Array
    start: NDArray[np.int64]
    entries: Integers
    widest: int
    reference: Array
    skin: float

    def still_holds(self, positions: Array) -> bool:
        """Whether no atom [atoms, 3] has moved by more than half the skin since; false as well if one is NaN."""
        return moved(np.ascontiguousarray(positions[self.order].T), self.reference, 0.5 * self.skin) == 0


def lattice_list(positions: Array, cell: Array, cutoff: float, skin: float = 0.0) -> LatticeList:
    """The list of positions [atoms, 3] in a cell [3, 3] with rows as lattice vectors; O(atoms).

    Raises InputError where the cutoff would take more than `MOST_GHOSTS` images of each atom.
    """
    reach = cutoff + skin
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    atoms = len(positions)
    if np.prod(1 + 2 * reach / heights) > MOST_GHOSTS * max(1.0, 1000 / atoms):
        expected = f"a cutoff comparable to the cell, whose faces are {heights.round(3).tolist()} apart"
        raise InputError(Problem("cutoff", expected, f"{reach:g}", "Lower the cutoff, or repeat the cell."))
    sites = positions @ inverse
    whole = np.floor(sites)
    sites = sites - whole
    order, first = _sort_sites(sites, heights)
    sites, offset = sites[order], (whole[order] @ cell).T.copy()
    source, hops = _find_ghosts(sites, reach / heights)
    shift = (hops @ cell).T.copy()
    x = sites @ cell
    extended = np.concatenate([x, x[source] + shift.T]).T.copy()
    start, entries = _list_neighbours(extended, first, reach)
    widest = int(np.diff(start).max(initial=0))
    reference = positions[order].T.copy()
    return LatticeList(order, offset, first, source, shift, start, entries, widest, reference, skin)


@kernel
def _sort_sites(sites: Array, heights: Array) -> tuple[Integers, Integers]:
    """Order of fractional positions in columns along the last axis, and the near-cubic clusters these are cut into."""
    n = sites.shape[0]
    side = (CLUSTER * heights[0] * heights[1] * heights[2] / n) ** (1 / 3)
    across = max(1, round(heights[0] / side))
    deep = max(1, round(heights[1] / side))
    slices = max(1, int(CLUSTER * heights[2] / side))
    keys = np.empty(n, np.int32)
    for i in range(n):
        a = min(int(sites[i, 0] * across), across - 1)
        b = min(int(sites[i, 1] * deep), deep - 1)
        keys[i] = (a * deep + b) * slices + min(int(sites[i, 2] * slices), slices - 1)
    order, start = counting_sort(keys, across * deep * slices)
    first = np.empty(n + across * deep + 1, np.int32)
    clusters = 0
    for column in range(across * deep):
        low, high = start[column * slices], start[(column + 1) * slices]
        parts = (high - low + CLUSTER - 1) // CLUSTER
        for part in range(parts):
            first[clusters] = low + (high - low) * part // parts
            clusters += 1
    first[clusters] = n
    return order, first[: clusters + 1].copy()


@kernel
def _find_ghosts(sites: Array, margin: Array) -> tuple[Integers, Array]:
    """Images within `margin` (fractional, [3]) of the cell: source [ghosts], whole hops [ghosts, 3]."""
    n = sites.shape[0]
    reach = np.ceil(margin).astype(np.int64)
    source, hops = np.empty(0, np.int32), np.empty((0, 3))
    for turn in range(2):  # count, then fill
        size = 0
        for i in range(n):
            for a in range(-reach[0], reach[0] + 1):
                if not -margin[0] <= sites[i, 0] + a < 1.0 + margin[0]:
                    continue
                for b in range(-reach[1], reach[1] + 1):
                    if not -margin[1] <= sites[i, 1] + b < 1.0 + margin[1]:
                        continue
                    for c in range(-reach[2], reach[2] + 1):
                        if not -margin[2] <= sites[i, 2] + c < 1.0 + margin[2] or (a == 0 and b == 0 and c == 0):
                            continue
                        if turn == 1:
                            source[size] = i
                            hops[size, 0], hops[size, 1], hops[size, 2] = a, b, c
                        size += 1
        if turn == 0:
            source, hops = np.empty(size, np.int32), np.empty((size, 3))
    return source, hops


@kernel
def _bin_extended(extended: Array, low: Array, width: float, shape: NDArray[np.int64]) -> tuple[Integers, Integers]:
    """Atoms and ghosts sorted into cubic bins: order and start of each bin."""
    keys = np.empty(extended.shape[1], np.int32)
    for i in range(extended.shape[1]):
        key = 0
        for d in range(3):
            key = key * shape[d] + min(int((extended[d, i] - low[d]) / width), shape[d] - 1)
        keys[i] = key
    return counting_sort(keys, shape[0] * shape[1] * shape[2])


@kernel
def _gap(low: float, high: float, left: float, width: float) -> float:
    """Distance along one axis between the interval low..high and the bin that starts at `left`."""
    return max(0.0, left - high, low - left - width)


@kernel
def _closest(near: Array, begin: int, end: int, extended: Array, low: int, high: int, closest: Array) -> None:
    """Smallest squared distance of binned points begin .. end - 1 to the atoms low .. high - 1, into closest[: end - begin]."""
    x, y, z = near[0], near[1], near[2]
    for k in range(end - begin):
        closest[k] = np.inf
    for i in range(low, high):
        xi, yi, zi = extended[0, i], extended[1, i], extended[2, i]
        for k in range(end - begin):
            dx, dy, dz = x[begin + k] - xi, y[begin + k] - yi, z[begin + k] - zi
            square = dx * dx + dy * dy + dz * dz
            best = closest[k]
            closest[k] = square if square < best else best


@kernel
def _near_cluster(
    extended: Array, low: int, high: int, reach: float, corner: Array, width: float, shape: NDArray[np.int64],
    order: Integers, start: Integers, binned: Array, closest: Array, found: Integers,
) -> int:  # fmt: skip
    """The atoms and ghosts within `reach` of any of the atoms low .. high - 1, into `found`; their number."""
    count = 0
    box, bounds = np.empty((3, 2)), np.empty((3, 2), np.int64)
    for d in range(3):
        box[d, 0], box[d, 1] = extended[d, low:high].min() - corner[d], extended[d, low:high].max() - corner[d]
        bounds[d, 0] = max(0, int((box[d, 0] - reach) / width))
        bounds[d, 1] = min(shape[d] - 1, int((box[d, 1] + reach) / width))
    for a in range(bounds[0, 0], bounds[0, 1] + 1):
        dx = _gap(box[0, 0], box[0, 1], a * width, width)
        for b in range(bounds[1, 0], bounds[1, 1] + 1):
            dy = _gap(box[1, 0], box[1, 1], b * width, width)
            room = reach * reach - dx * dx - dy * dy
            if room < 0.0:
                continue
            row, along = (a * shape[1] + b) * shape[2], math.sqrt(room)
            begin = start[row + max(0, int((box[2, 0] - along) / width))]
            end = start[row + min(shape[2] - 1, int((box[2, 1] + along) / width)) + 1]
            _closest(binned, begin, end, extended, low, high, closest)
            for k in range(end - begin):
                found[count] = order[begin + k]
                count += closest[k] < reach * reach  # the next one overwrites what is too far
    return count


@kernel
def _fill_rows(
    extended: Array, first: Integers, reach: float, corner: Array, width: float, shape: NDArray[np.int64],
    order: Integers, bins: Integers, binned: Array,
) -> tuple[NDArray[np.int64], Integers]:  # fmt: skip
    """The neighbours of all clusters, one after the other: starts [clusters + 1] and entries."""
    clusters, size = first.size - 1, 0
    found, closest = np.empty(extended.shape[1] + 1, np.int32), np.empty(extended.shape[1])
    starts, entries = np.zeros(clusters + 1, np.int64), np.empty(256 * clusters, np.int32)
    for c in range(clusters):
        n = _near_cluster(extended, first[c], first[c + 1], reach, corner, width, shape, order, bins, binned, closest, found)
        if size + n > entries.size:
            more = np.empty(2 * entries.size + n, np.int32)
            more[:size] = entries[:size]
            entries = more
        entries[size : size + n] = found[:n]
        size += n
        starts[c + 1] = size
    return starts, entries[:size].copy()


def _list_neighbours(extended: Array, first: Integers, reach: float) -> tuple[NDArray[np.int64], Integers]:
    """Neighbours of each cluster: start [clusters + 1] and entries."""
    corner, far = extended.min(axis=1), extended.max(axis=1)
    spacing = (np.prod(np.maximum(far - corner, 1e-9)) / extended.shape[1]) ** (1 / 3)
    width = max(reach / 3, spacing)
    shape = np.maximum(1, np.ceil((far - corner) / width)).astype(np.int64)
    order, bins = _bin_extended(extended, corner, width, shape)
    binned = np.ascontiguousarray(extended[:, order])
    return _fill_rows(extended, first, reach, corner, width, shape, order, bins, binned)
