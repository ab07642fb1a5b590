"""Periodic boxes of any lattice: lengths and angles, as people write them, and vectors, as forces need them. Torch-free.

A cell [3, 3] has the vectors of a box as rows, lower triangular with a positive diagonal: a = (ax, 0, 0), b = (bx, by, 0),
c = (cx, cy, cz). It is reduced where no tilt is more than half an edge: |bx|, |cx| <= ax / 2 and |cy| <= by / 2. Angles, in
degrees, are those between b and c, a and c, a and b. What is rectangular stays so to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem

Array = NDArray[np.float64]
Triple = tuple[float, float, float]

RIGHT: Triple = (90.0, 90.0, 90.0)
ROUNDED = 1e-4  # degrees that a right angle may be off: files round
MARGIN = 1e-3  # of half an edge that a tilt may be beyond it: those of a truncated octahedron are just there, and rounded
FLAT = 1e-3  # of the product of the edges: a box of less volume is a mistake


def directions(angles: Sequence[float]) -> Array:
    """Unit vectors [3, 3] along the edges of a box with these angles, as rows. `ValueError` where no box has such."""
    if not all(0 < angle < 180 for angle in angles):
        raise ValueError(f"angles of a box are between 0 and 180 degrees, not {list(angles)}")
    alpha, beta, gamma = (0.0 if abs(angle - 90) <= ROUNDED else math.cos(math.radians(angle)) for angle in angles)
    sine = math.sqrt(1 - gamma**2)
    across = (alpha - beta * gamma) / sine
    square = 1 - beta**2 - across**2
    if square * sine**2 < FLAT**2:
        raise ValueError(f"angles {list(angles)} span no volume")
    return np.array([[1.0, 0.0, 0.0], [gamma, sine, 0.0], [beta, across, math.sqrt(square)]])


def lengths(cell: Array) -> Array:
    """Lengths [3] of the vectors of a cell [3, 3]."""
    return np.asarray(np.sqrt((cell**2).sum(axis=1)))


def angles_of(cell: Array) -> Triple:
    """The angles of a cell [3, 3], degrees."""
    a, b, c = cell / lengths(cell)[:, None]
    alpha, beta, gamma = (math.degrees(math.acos(float(np.dot(*pair)))) for pair in ((b, c), (a, c), (a, b)))
    return alpha, beta, gamma


def heights(edges: Sequence[float], angles: Sequence[float]) -> Triple:
    """Distances between opposite faces of a box, each across the plane of the other two edges."""
    _, (bx, by, _), (cx, cy, cz) = directions(angles).tolist()
    first = by * cz / math.hypot(by * cz, bx * cz, bx * cy - by * cx)  # volume over the area of b x c
    second = by * (cz / math.hypot(cy, cz))
    return edges[0] * first, edges[1] * second, edges[2] * cz


def reduced(cell: Array) -> Array:
    """The reduced cell of the lattice that a lower-triangular `cell` spans. `ValueError` where it spans no volume.

    Tilts up to `MARGIN` beyond half an edge are left as they are, so that what is rounded does not decide.
    """
    found, diagonal = cell.copy(), cell.diagonal()
    spans = np.isfinite(cell).all() and (diagonal > 0).all()
    for row, column in ((2, 1), (2, 0), (1, 0)) if spans else ():
        tilt, edge = found[row, column], diagonal[column]
        if abs(tilt) > 0.5 * (1 + MARGIN) * edge:
            found[row] -= np.rint(tilt / edge) * found[column]
    if not spans or diagonal.prod() < FLAT * lengths(found).prod():
        raise ValueError(f"the vectors of a box span a volume, which {cell.tolist()} do not")
    found[np.abs(found) <= math.radians(ROUNDED) * diagonal[:, None]] = 0.0
    return found


def read_cell(edges: Sequence[float], angles: Sequence[float], scale: float, where: Path) -> Array:
    """The reduced cell of a box with `edges`, times `scale`, and `angles` in a file. Raises `InputError` where none is."""
    try:
        return reduced((np.asarray(edges, dtype=np.float64) * scale)[:, None] * directions(angles))
    except ValueError as error:
        remedy = "Solvate the molecule again, and write coordinates with their box."
        raise InputError(Problem(str(where), "a periodic box", str(error), remedy)) from error
