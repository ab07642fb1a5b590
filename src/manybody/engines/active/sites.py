"""Where disks start: hexagonal lattices, over the square or packed into a strip. Torch-free."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Start = Literal["lattice", "strip"]

STRIP_SPACING = 1.15  # diameters between neighbours in the strip: dense, and beyond the repulsion's range


def start_sites(count: int, edge: float, start: Start) -> np.ndarray:
    """At least `count` sites [sites, 2] in a square of edge `edge`; a strip that does not fit becomes a lattice."""
    strip = count * STRIP_SPACING**2 * math.sqrt(3) / 2 / edge
    return hexagonal_sites(count, min(edge, strip) if start == "strip" else edge, edge)


def start_spacing(count: int, edge: float, start: Start) -> float:
    """The distance of nearest neighbours among these sites."""
    strip = count * STRIP_SPACING**2 * math.sqrt(3) / 2 / edge
    return _closest(count, min(edge, strip) if start == "strip" else edge, edge)[1]


def hexagonal_sites(least: int, width: float, height: float) -> np.ndarray:
    """At least `least` sites [sites, 2] of a hexagonal lattice in a periodic rectangle, slightly strained to fit."""
    (rows, columns), _ = _closest(least, width, height)
    row, column = np.divmod(np.arange(rows * columns), columns)
    x = (column + 0.25 + 0.5 * (row % 2)) * (width / columns)
    return np.stack([x, (row + 0.5) * (height / rows)], axis=1)


def _closest(least: int, width: float, height: float) -> tuple[tuple[int, int], float]:
    """Rows (even) and columns of the lattice whose nearest neighbours are furthest apart, and their distance."""
    best, widest = (0, 0), 0.0
    for rows in range(2, 2 * math.ceil(math.sqrt(least * height / width)) + 4, 2):
        columns = math.ceil(least / rows)
        along, across = width / columns, height / rows
        apart = min(along, 2 * across, math.hypot(along / 2, across))
        if apart > widest:
            best, widest = (rows, columns), apart
    return best, widest
