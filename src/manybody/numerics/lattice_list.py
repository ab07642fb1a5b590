"""Cluster neighbour lists in any periodic cell, for any cutoff, images of an atom itself included.

The same layout as `neighbours.py` (clusters, ghosts, a full list), for triclinic cells and for cutoffs beyond the cell.
Here a cluster's own atoms are among its neighbours, and the force loop leaves out the pair at distance zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem
from manybody.numerics.jit import kernel, parallel_kernel
from manybody.numerics.neighbours import CLUSTER, counting_sort, moved

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
    start, entries = _list_neighbours(extended, atoms, first, reach)
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
def _near_cluster(
    extended: Array, low: int, high: int, reach: float, corner: Array, width: float, shape: NDArray[np.int64],
    order: Integers, start: Integers, found: Integers,
) -> int:  # fmt: skip
    """The atoms and ghosts within `reach` of any of the atoms low .. high - 1, into `found`; their number."""
    count = 0
    bounds = np.empty((3, 2), np.int64)
    for d in range(3):
        members = extended[d, low:high]
        bounds[d, 0] = max(0, int((members.min() - reach - corner[d]) / width))
        bounds[d, 1] = min(shape[d] - 1, int((members.max() + reach - corner[d]) / width))
    for a in range(bounds[0, 0], bounds[0, 1] + 1):
        for b in range(bounds[1, 0], bounds[1, 1] + 1):
            row = (a * shape[1] + b) * shape[2]
            for n in range(start[row + bounds[2, 0]], start[row + bounds[2, 1] + 1]):
                j = order[n]
                x, y, z = extended[0, j], extended[1, j], extended[2, j]
                closest = np.inf
                for i in range(low, high):
                    dx, dy, dz = extended[0, i] - x, extended[1, i] - y, extended[2, i] - z
                    closest = min(closest, dx * dx + dy * dy + dz * dz)
                found[count] = j
                count += closest < reach * reach  # the next one overwrites what is too far
    return count


@parallel_kernel
def _fill_rows(
    extended: Array, first: Integers, reach: float, corner: Array, width: float, shape: NDArray[np.int64],
    order: Integers, bins: Integers, starts: NDArray[np.int64], entries: Integers, counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Count the neighbours of each cluster, and where `entries` has room for them, write them at `starts`."""
    clusters = first.size - 1
    parts = min(64, clusters)
    for part in numba.prange(parts):
        found = np.empty(extended.shape[1] + 1, np.int32)
        for c in range(clusters * part // parts, clusters * (part + 1) // parts):
            n = _near_cluster(extended, first[c], first[c + 1], reach, corner, width, shape, order, bins, found)
            counts[c] = n
            if starts[c] + n <= starts[c + 1]:
                entries[starts[c] : starts[c] + n] = found[:n]


def _list_neighbours(extended: Array, atoms: int, first: Integers, reach: float) -> tuple[NDArray[np.int64], Integers]:
    """Neighbours of each cluster: start [clusters + 1] and entries.  The rows are counted, then written."""
    corner, far = extended.min(axis=1), extended.max(axis=1)
    spacing = (np.prod(np.maximum(far - corner, 1e-9)) / extended.shape[1]) ** (1 / 3)
    width = max(reach / 3, spacing)
    shape = np.maximum(1, np.ceil((far - corner) / width)).astype(np.int64)
    order, bins = _bin_extended(extended, corner, width, shape)
    clusters = first.size - 1
    counts, starts = np.zeros(clusters, np.int64), np.zeros(clusters + 1, np.int64)
    entries = np.empty(0, np.int32)
    for _ in range(2):
        _fill_rows(extended, first, reach, corner, width, shape, order, bins, starts, entries, counts)
        starts = np.concatenate([[0], np.cumsum(counts)])
        entries = entries if entries.size else np.empty(int(starts[-1]), np.int32)
    return starts, entries
