"""Closed forms and published laws of dissipative particles. Torch-free.

Sources: R. D. Groot and P. B. Warren, J. Chem. Phys. 107, 4423 (1997) (equation of state); J. L. Lebowitz, J. K. Percus and
L. Verlet, Phys. Rev. 153, 250 (1967) (ensembles and finite size).
"""

from __future__ import annotations

import math

import numpy as np

SLOPE, SLOPE_ERROR = 0.101, 0.001  # alpha of p = rho kT + alpha a rho^2, as published
MEAN_FIELD_SLOPE = math.pi / 30  # the same for g(r) = 1: (2 pi / 3) int (1 - r) r^3 dr


def pressure(density: float, repulsion: float, temperature: float) -> float:
    """Groot and Warren's p = rho kT + alpha a rho^2."""
    return density * temperature + SLOPE * repulsion * density**2


def inverse_compressibility(density: float, repulsion: float, temperature: float, slope: float = SLOPE) -> float:
    """(dp/d rho) / kT = 1 + 2 alpha a rho / kT."""
    return 1 + 2 * slope * repulsion * density / temperature


def second_virial(repulsion: float, temperature: float, points: int = 4000) -> float:
    """B2 = 2 pi int_0^1 (1 - exp(-a (1 - r)^2 / 2 kT)) r^2 dr, by the midpoint rule."""
    r = (np.arange(points) + 0.5) / points
    return 2 * math.pi * float((-np.expm1(-0.5 * repulsion / temperature * (1 - r) ** 2) * r**2).sum()) / points


def ideal_end_to_end(beads: int, spring: float, temperature: float) -> float:
    """Mean square distance of the ends of a chain without repulsion: 3 (beads - 1) kT / C."""
    return 3 * (beads - 1) * temperature / spring


def unlike_share(counts: tuple[int, ...]) -> float:
    """The share of unlike ones among all pairs of particles, which is that of close pairs if species are but names."""
    total = sum(counts)
    return 1 - sum(count * (count - 1) for count in counts) / (total * (total - 1))
