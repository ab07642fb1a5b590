"""How finely to resolve a particle-mesh Ewald sum for a requested force error, and at what cost."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem
from manybody.numerics.bsplines import check_order
from manybody.numerics.ewald import cell_heights, direct_error

Array = NDArray[np.float64]

ORDERS = (4, 5, 6, 7, 8)
SINGLE_PRECISION_LIMIT = 1e-5  # relative force error that pairs in single precision still reach with ease: they err by 1e-6


@dataclass(frozen=True)
class PMEParameters:
    """Splitting alpha (1/length), direct cutoff and list skin (length), spline order, mesh shape, precision of pairs."""

    alpha: float
    cutoff: float
    order: int
    mesh: tuple[int, int, int]
    skin: float = 0.0
    single: bool = False

    def __post_init__(self) -> None:
        check_order(self.order)
        for name, least in (("alpha", 0.0), ("cutoff", 0.0), ("skin", -1e-300)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > least):
                raise InputError(Problem(name, "a positive finite number", f"{value!r}", "Use PMEPlan.for_accuracy."))
        if min(self.mesh) < self.order:
            expected = f"at least {self.order} points along each axis, the spline order"
            raise InputError(Problem("mesh", expected, f"{self.mesh}", "Refine the mesh or lower the order."))


@lru_cache(maxsize=1024)
def aliasing_integrals(spacing: float, order: int) -> tuple[float, float]:
    """Errors of a mesh of spacing alpha h: by other charges, and by a charge's own image on the mesh; without units.

    Spreading lets mode k appear at k + G, G = 2 pi l / h, with amplitude A_l = (k_x / (k_x + G))^n, normalised as the
    Euler spline does. To first order in A the squared force error of a pair sums, over k and the three axes,
    g(k)^2 [A_l^2 (k^2 + |k + G|^2) + 4 k^2 A_l^2], g = 4 pi / k^2 exp(-k^2 / 4 alpha^2): aliasing when reading, when
    spreading, and the loss from the mode itself. A charge meets itself with all modes in phase, in the force
    2 G sin(G x) sum_k g A_1. After H. Wang, F. Dommert, C. Holm, J. Chem. Phys. 133 (2010) 034117, and V. Ballenegger,
    J. J. Cerda, C. Holm, Comput. Phys. Commun. 182 (2011) 1919.
    """
    edge = math.pi / spacing  # lengths in 1 / alpha
    x = (np.arange(100) + 0.5) * edge / 100
    p = (np.arange(80) + 0.5) * min(edge, 9.0) / 80
    square = x[:, None] ** 2 + p[None, :] ** 2
    g = 4 * math.pi / square * np.exp(-square / 4)
    ratios = {layer: (x / (x + 2 * edge * layer)) ** order for layer in (-2, -1, 1, 2)}
    norm = np.abs(1 + sum(ratios.values()))
    total = np.zeros_like(square)
    for layer, ratio in ratios.items():
        aliased = (x + 2 * edge * layer)[:, None] ** 2 + p[None, :] ** 2
        total += (ratio / norm)[:, None] ** 2 * (aliased + 5 * square)
    measure = 2 * math.pi * p[None, :] * (x[1] - x[0]) * (p[1] - p[0]) / (2 * math.pi) ** 3  # of half the modes: k_x > 0
    beyond = 8 * math.exp(-(edge**2) / 2) / edge  # modes the mesh does not have: the integral of k^2 g^2 past its edge
    nearest = (np.abs(ratios[1]) + np.abs(ratios[-1])) / norm
    own = math.sqrt(6) * 2 * edge * float((g * nearest[:, None] * measure).sum())
    return math.sqrt(6 * float((g**2 * total * measure).sum()) + beyond), own


def mesh_error(charges: Array, volume: float, alpha: float, spacing: float, order: int) -> float:
    """Estimated root-mean-square force error of a mesh of `spacing` (length) for uncorrelated charges, charge^2 / length^2."""
    others, own = aliasing_integrals(float(f"{alpha * spacing:.9g}"), order)  # rounded: the table of SPACINGS is met again
    others *= float((charges**2).sum()) * math.sqrt(alpha / (len(charges) * volume))
    own *= alpha**2 * math.sqrt(float((charges**4).mean()))
    return math.hypot(others, own)


def mesh_size(least: float) -> int:
    """The smallest multiple of 4 with prime factors 2, 3 and 5 only that is at least `least`: what transforms fast."""
    size = max(8, 4 * math.ceil(least / 4))
    while _rest(size) != 1:
        size += 4
    return size


def _rest(size: int) -> int:
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    return size


SPACINGS: tuple[float, ...] = tuple(np.geomspace(0.08, 2.4, 70).tolist())  # alpha h, in steps of 5 %


def widest_spacing(charges: Array, volume: float, alpha: float, order: int, error: float) -> float:
    """The widest mesh spacing, to 5 %, whose estimated error stays below `error`; the error grows with the spacing."""
    fitting = bisect_right(SPACINGS, error, key=lambda scaled: mesh_error(charges, volume, alpha, scaled / alpha, order))
    return SPACINGS[max(fitting - 1, 0)] / alpha


def cost(atoms: int, density: float, parameters: PMEParameters) -> float:
    """Predicted nanoseconds of one evaluation on one core, from a model measured on one machine: only ratios count."""
    cluster = 0.47 * math.pow(8 / density, 1 / 3)  # the list of a cluster reaches that much further than an atom's
    pairs = atoms * density * 4 / 3 * math.pi * (parameters.cutoff + parameters.skin + cluster) ** 3
    mesh = atoms * (150 + 29 * parameters.order) + 9.7 * math.prod(parameters.mesh)
    return pairs * (1.05 if parameters.single else 3.6) + mesh


def choose(
    charges: Array, cell: Array, force_error: float, skin: float = 0.0, single: bool = False, cutoff: float | None = None
) -> PMEParameters:
    """The cheapest parameters whose estimated root-mean-square force error stays below `force_error`.

    The error is shared evenly by both sums. With a `cutoff` given, only the mesh is chosen.
    """
    if not (math.isfinite(force_error) and force_error > 0):
        raise InputError(Problem("force_error", "a positive number", f"{force_error!r}", "Ask for 1e-4 of the typical force."))
    volume, half = abs(float(np.linalg.det(cell))), force_error / math.sqrt(2)
    density = len(charges) / volume
    heights = cell_heights(cell)
    cutoffs = density ** (-1 / 3) * np.geomspace(1.5, 6.0, 25) if cutoff is None else np.array([cutoff])
    best: PMEParameters | None = None
    for reach in cutoffs:
        alpha = splitting(charges, volume, float(reach), half)
        for order in ORDERS:
            spacing = widest_spacing(charges, volume, alpha, order, half)
            x, y, z = (mesh_size(max(height / spacing, order)) for height in heights)
            trial = PMEParameters(alpha, float(reach), order, (x, y, z), skin, single)
            if best is None or cost(len(charges), density, trial) < cost(len(charges), density, best):
                best = trial
    assert best is not None
    return best


def splitting(charges: Array, volume: float, cutoff: float, error: float) -> float:
    """The smallest alpha at which cutting the direct sum costs no more than `error`."""
    scale = direct_error(charges, volume, 0.0, cutoff)
    return math.sqrt(max(math.log(max(scale / error, 1.0)), 0.25)) / cutoff
