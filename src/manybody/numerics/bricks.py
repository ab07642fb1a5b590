"""Triclinic and sheared periodic cells in the lists of pairs: any lattice, any cutoff.

A cell [3, 3] has its vectors as rows, lower triangular with a positive diagonal: a = (ax, 0, 0), b = (bx, by, 0),
c = (cx, cy, cz). The brick ax x by x cz holds each atom of the crystal once, just as the slanted cell does, whatever the
tilts. So atoms are wrapped into the brick, sorted in it like in any box, and images are displaced by whole hops of the
lattice: as many as come within reach, be it more than one of the same atom.

A cell sheared by u = rate y e_x has F = 1 + strain e_x e_y for its deformation: F r = r + strain y e_x. Its lattice is the
same again when b is tilted by a whole ax: that is the flip of Lees and Edwards, A. W. Lees and S. F. Edwards, J. Phys. C 5,
1921 (1972). No atom has to move for it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem
from manybody.numerics.clusters import Clusters, bounds
from manybody.numerics.jit import kernel
from manybody.numerics.lattice_list import MOST_GHOSTS

Array = NDArray[np.float64]


def lower_triangular(cell: Array) -> tuple[Array, Array]:
    """A rotation Q [3, 3] and the cell L [3, 3] with cell = L Q, L lower triangular with a positive diagonal.

    Positions r become r Q^T. Raises `InputError` where the rows of `cell` span no volume or are no numbers.
    """
    cell = np.asarray(cell, dtype=np.float64)
    if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-9 * np.abs(cell).max() ** 3:
        raise InputError(Problem("cell", "three lattice vectors that span a volume", f"{cell.tolist()}", "Give one as each row."))
    rotation, upper = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(upper))
    return (rotation * signs).T, np.ascontiguousarray(upper.T * signs)


def refuse_unreachable(cell: Array, reach: float, atoms: int) -> None:
    """Refuse a `reach` for which a lower-triangular cell would need more than `MOST_GHOSTS` images of each atom."""
    edges = np.diag(cell)
    if not reach > 0 or np.prod(1 + 2 * reach / edges) > MOST_GHOSTS * max(1.0, 1000 / atoms):
        expected = f"a cutoff above 0 and comparable to the cell, which is {edges.round(3).tolist()} wide"
        raise InputError(Problem("cutoff", expected, f"{reach:g}", "Lower the cutoff, or repeat the cell."))


@kernel
def wrap_into_brick(x: np.ndarray, cell: np.ndarray) -> None:
    """Bring positions [3, atoms] into the brick of a cell by whole hops of its lattice, in place."""
    for d in range(2, -1, -1):
        edge = cell[d, d]
        for i in range(x.shape[1]):
            hops = np.floor(x[d, i] / edge)
            if hops != 0.0:
                for e in range(d + 1):
                    x[e, i] -= hops * cell[d, e]


@kernel
def _hops(low: float, high: float, edge: float, reach: float) -> tuple[int, int]:
    """The first and last multiples of `edge` that bring low .. high within `reach` of 0 .. edge."""
    return math.ceil((-reach - high) / edge), math.floor((edge + reach - low) / edge)


@kernel
def _place_images(edges: np.ndarray, cell: np.ndarray, reach: float, source: np.ndarray, shift: np.ndarray) -> int:
    """The number of images whose bounding boxes come within `reach` of the brick; those that fit are written down.

    edges: [6, clusters], as from `bounds`; source [images]; shift [3, images].
    """
    count = 0
    for cluster in range(edges.shape[1]):
        low, high = (
            (edges[0, cluster], edges[1, cluster], edges[2, cluster]),
            (edges[3, cluster], edges[4, cluster], edges[5, cluster]),
        )
        first_c, last_c = _hops(low[2], high[2], cell[2, 2], reach)
        for c in range(first_c, last_c + 1):
            slant = c * cell[2, 1]
            first_b, last_b = _hops(low[1] + slant, high[1] + slant, cell[1, 1], reach)
            for b in range(first_b, last_b + 1):
                tilt = c * cell[2, 0] + b * cell[1, 0]
                first_a, last_a = _hops(low[0] + tilt, high[0] + tilt, cell[0, 0], reach)
                for a in range(first_a, last_a + 1):
                    if a == 0 and b == 0 and c == 0:
                        continue
                    if count < source.size:
                        source[count] = cluster
                        shift[0, count] = tilt + a * cell[0, 0]
                        shift[1, count] = slant + b * cell[1, 1]
                        shift[2, count] = c * cell[2, 2]
                    count += 1
    return count


@kernel
def add_lattice_images(x: np.ndarray, cell: np.ndarray, first: np.ndarray, reach: float) -> Clusters:
    """The clusters [clusters + 1] of positions in the brick, and all their images within `reach` of it."""
    clusters = first.size - 1
    edges = bounds(x, first)
    count = _place_images(edges, cell, reach, np.empty(0, np.int32), np.empty((3, 0)))
    source, shift = np.empty(count, np.int32), np.empty((3, count))
    _place_images(edges, cell, reach, source, shift)
    ends = np.empty(clusters + count + 1, np.int32)
    for cluster in range(clusters + 1):
        ends[cluster] = first[cluster]
    for image in range(count):
        ends[clusters + image + 1] = ends[clusters + image] + first[source[image] + 1] - first[source[image]]
    return Clusters(ends, source, shift)


@kernel
def sheared(cell: np.ndarray, strain: float) -> np.ndarray:
    """The cell after a shear `strain`, its tilts brought back to at most half an edge by the flip."""
    result = cell.copy()
    for row in range(1, 3):
        result[row, 0] += strain * cell[row, 1]
    for row, column in ((2, 1), (2, 0), (1, 0)):
        hops = np.rint(result[row, column] / result[column, column])
        for d in range(column + 1):
            result[row, d] -= hops * result[column, d]
    return result


@kernel
def shrinkage(strain: float) -> float:
    """By how much a shear shortens a distance at most: the smallest singular value of F."""
    return math.sqrt(1.0 + 0.25 * strain * strain) - 0.5 * abs(strain)


@kernel
def strayed(x: np.ndarray, reference: np.ndarray, strain: float, limit: float) -> int:
    """How many atoms are further than `limit` from where a shear would have carried them; a NaN counts.

    Two atoms that were r apart are then at least ``shrinkage(strain) r - 2 limit`` apart, images included.
    """
    if limit <= 0.0:
        return int(x.shape[1])
    count = 0
    x0, x1, x2 = x[0], x[1], x[2]
    r0, r1, r2 = reference[0], reference[1], reference[2]
    for i in range(x.shape[1]):
        dx, dy, dz = x0[i] - r0[i] - strain * r1[i], x1[i] - r1[i], x2[i] - r2[i]
        count += not dx * dx + dy * dy + dz * dz <= limit * limit
    return count
