"""Direct space of Ewald's sum: pairs that interact by erfc(alpha r) / r, in one loop without branches.

No exponential is taken: erf(alpha r) / (alpha r) is a smooth function W of t = (alpha r)^2, so a polynomial P in t stands
in for it up to the cutoff, and

    erfc(alpha r) / r = 1 / r - alpha W(t),        force / distance = 1 / r^3 + 2 alpha^3 W'(t).

Force and energy come from the same polynomial, so the force is the exact derivative of the energy that is returned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor

from manybody.numerics.jit import inlined, kernel
from manybody.numerics.lattice_list import LatticeList

Array = NDArray[np.float64]
Reals = NDArray[np.floating]
Constants = tuple[float, float, float, float, float, float]  # r_c^2, 2 / r_c^2, alpha, 4 alpha / r_c^2, 1, 0

FAR = 1e6  # where padding atoms sit, in cutoffs; its square stays inside single precision
LANES = 32  # rows are padded to whole SIMD registers, unrolled twice
SINGLE_TERMS, DOUBLE_TERMS = (10, 12, 14, 16), (16, 20, 28, 36)  # lengths of the polynomial, compiled when first used


# --- the formula -----------------------------------------------------------------------------------------------


def screened_energy(distances: Tensor, products: Tensor, alpha: float) -> Tensor:
    """sum q_i q_j erfc(alpha r_ij) / r_ij.  distances, products: [pairs]; returns [].  The plain twin of the kernel."""
    return (products * torch.erfc(alpha * distances) / distances).sum()


def exclusion_energy(positions: Tensor, charges: Tensor, cell: Tensor, pairs: Tensor, kept: Tensor) -> Tensor:
    """What is taken off for pairs that interact only in part: -sum (1 - kept) q_i q_j / r of the nearest image.

    pairs: [pairs, 2]; kept: [pairs], 0 for an excluded pair, the 1-4 factor for a scaled one; returns [].
    """
    i, j = pairs[:, 0], pairs[:, 1]
    separation = positions[i] - positions[j]
    separation = separation - torch.round((separation @ torch.linalg.inv(cell)).detach()) @ cell
    return -((1 - kept) * charges[i] * charges[j] / torch.linalg.norm(separation, dim=-1)).sum()


# --- the polynomial --------------------------------------------------------------------------------------------


def smooth_part(t: Array) -> Array:
    """W(t) = erf(sqrt t) / sqrt t, 2 / sqrt(pi) at 0; elementwise."""
    root = np.sqrt(np.maximum(t, 1e-12))
    return np.asarray(np.where(t < 1e-12, 2 / math.sqrt(math.pi), erf(root) / root))


def fit_smooth_part(alpha: float, cutoff: float, terms: int) -> tuple[Array, float]:
    """Coefficients of P(s), s = 2 (r / r_c)^2 - 1, highest power first, and the largest error of -dP/dt against -W'.

    Chebyshev interpolation of the derivative (the force is what counts), integrated so that P meets W at t = 0.
    The error is relative to W'(0) = -4 / (3 sqrt(pi)) in absolute value. Returns ([terms], error).
    """
    top = (alpha * cutoff) ** 2
    nodes = chebyshev.chebpts1(terms - 1)
    slope = np.linalg.solve(chebyshev.chebvander(nodes, terms - 2), _smooth_slope(0.5 * top * (nodes + 1)))
    series = chebyshev.chebint(slope * 0.5 * top, lbnd=-1, k=[2 / math.sqrt(math.pi)])
    probe = np.linspace(-1, 1, 4001)
    error = np.abs(chebyshev.chebval(probe, slope) - _smooth_slope(0.5 * top * (probe + 1))).max()
    return np.asarray(chebyshev.cheb2poly(series)[::-1], dtype=np.float64), float(error / (4 / (3 * math.sqrt(math.pi))))


def _smooth_slope(t: Array) -> Array:
    """W'(t) = (exp(-t) / sqrt(pi) - W(t) / 2) / t, its series -2/3 + 2t/5 - t^2/7 (over sqrt pi, times 2) near 0."""
    small = t < 1e-3
    safe = np.where(small, 1.0, t)
    closed = (np.exp(-safe) / math.sqrt(math.pi) - 0.5 * smooth_part(safe)) / safe
    series = 2 / math.sqrt(math.pi) * (-1 / 3 + t / 5 - t**2 / 14 + t**3 / 54 - t**4 / 264)
    return np.asarray(np.where(small, series, closed))


# --- the compiled path -----------------------------------------------------------------------------------------


@kernel
def _gather_row(
    extended: Array, charges: Array, entries: NDArray[np.int32], low: int, high: int, centre: Array, far: float, near: Reals
) -> int:  # fmt: skip
    """Copy the neighbours entries[low:high], relative to `centre`, and their charges into near [4, :]; padded length."""
    x, y, z, q = near[0], near[1], near[2], near[3]
    count = high - low
    for k in range(count):
        j = entries[low + k]
        x[k] = extended[0, j] - centre[0]
        y[k] = extended[1, j] - centre[1]
        z[k] = extended[2, j] - centre[2]
        q[k] = charges[j]
    padded = (count + LANES - 1) // LANES * LANES
    for k in range(count, padded):
        x[k], y[k], z[k], q[k] = far, far, far, 0.0
    return padded


@inlined
def _pull_one(
    x: float, y: float, z: float, near: Reals, count: int, constants: Constants, c: Reals, terms: int
) -> tuple[float, float, float, float]:
    """Force and potential of `count` neighbours on one unit charge at x, y, z, by a polynomial of `terms` coefficients."""
    near_x, near_y, near_z, near_q = near[0], near[1], near[2], near[3]
    limit, scale, alpha, steep, one, zero = constants
    fx = fy = fz = potential = zero
    for k in range(count):
        dx, dy, dz = x - near_x[k], y - near_y[k], z - near_z[k]
        r2 = dx * dx + dy * dy + dz * dz
        inside = (r2 < limit) & (r2 > zero)
        r2 = r2 if inside else limit
        q = near_q[k] if inside else zero
        s = r2 * scale - one
        inverse = one / math.sqrt(r2)
        value, slope = c[0], zero
        for n in range(1, terms):
            slope = slope * s + value
            value = value * s + c[n]
        pull = q * (inverse * inverse * inverse + steep * slope)
        potential += q * (inverse - alpha * value)
        fx += pull * dx
        fy += pull * dy
        fz += pull * dz
    return fx, fy, fz, potential


@inlined
def _squeeze_one(
    x: float, y: float, z: float, near: Reals, count: int, constants: Constants, c: Reals, terms: int
) -> tuple[float, float, float, float, float, float]:
    """sum_j q_j (force / distance) d_a d_b of one unit charge, for ab = xx, yy, zz, yz, xz, xy."""
    near_x, near_y, near_z, near_q = near[0], near[1], near[2], near[3]
    limit, scale, _, steep, one, zero = constants
    xx = yy = zz = yz = xz = xy = zero
    for k in range(count):
        dx, dy, dz = x - near_x[k], y - near_y[k], z - near_z[k]
        r2 = dx * dx + dy * dy + dz * dz
        inside = (r2 < limit) & (r2 > zero)
        r2 = r2 if inside else limit
        q = near_q[k] if inside else zero
        s = r2 * scale - one
        inverse = one / math.sqrt(r2)
        value, slope = c[0], zero
        for n in range(1, terms):
            slope = slope * s + value
            value = value * s + c[n]
        pull = q * (inverse * inverse * inverse + steep * slope)
        xx += pull * dx * dx
        yy += pull * dy * dy
        zz += pull * dz * dz
        yz += pull * dy * dz
        xz += pull * dx * dz
        xy += pull * dx * dy
    return xx, yy, zz, yz, xz, xy


@kernel
def _extend(
    positions: Array, charges: Array, order: NDArray[np.int32], offset: Array, source: NDArray[np.int32], shift: Array,
    extended: Array, spread_charges: Array,
) -> None:  # fmt: skip
    """Sorted atoms followed by their ghosts: extended [3, atoms + ghosts] and their charges."""
    atoms = order.size
    for i in range(atoms):
        spread_charges[i] = charges[order[i]]
        for d in range(3):
            extended[d, i] = positions[order[i], d] - offset[d, i]
    for g in range(source.size):
        spread_charges[atoms + g] = spread_charges[source[g]]
        for d in range(3):
            extended[d, atoms + g] = extended[d, source[g]] + shift[d, g]


@cache
def _direct_kernel(terms: int) -> Callable[..., None]:
    """The direct sum over all clusters: the number of coefficients has to be known when it is compiled."""

    @kernel
    def direct(
        extended: Array, charges: Array, order: NDArray[np.int32], first: NDArray[np.int32], start: NDArray[np.int64],
        entries: NDArray[np.int32], widest: int, constants: Constants, c: Reals, squeeze: bool, begin: int, end: int,
        forces: Array, potentials: Array, virials: Array,
    ) -> None:  # fmt: skip
        """Forces [atoms, 3], potentials [atoms], virials [clusters, 6] of the clusters begin .. end - 1."""
        near, own, centre = np.empty((4, widest + LANES), c.dtype), np.empty(3, c.dtype), np.empty(3)
        far = FAR * math.sqrt(constants[0])
        for cluster in range(begin, end):
            low, high = first[cluster], first[cluster + 1]
            for d in range(3):
                centre[d] = extended[d, low]
            count = _gather_row(extended, charges, entries, start[cluster], start[cluster + 1], centre, far, near)
            for i in range(low, high):
                for d in range(3):
                    own[d] = extended[d, i] - centre[d]  # rounded as the neighbours are: distance zero stays zero
                name, q = order[i], charges[i]
                fx, fy, fz, potential = _pull_one(own[0], own[1], own[2], near, count, constants, c, terms)
                forces[name, 0], forces[name, 1], forces[name, 2] = q * fx, q * fy, q * fz
                potentials[name] = potential
                if squeeze:
                    share = _squeeze_one(own[0], own[1], own[2], near, count, constants, c, terms)
                    for d in range(6):
                        virials[cluster, d] += 0.5 * q * share[d]

    return direct


class ScreenedPairs:
    """The direct sum for one alpha and cutoff, its pairs in single or double precision.

    `tolerance` is what the polynomial's force may err by, relative to the smeared force at contact; the shortest of a
    few lengths that reaches it is taken. `error` is what it errs by.
    """

    def __init__(self, alpha: float, cutoff: float, single: bool = False, tolerance: float = 0.0) -> None:
        kind = np.float32 if single else np.float64
        for terms in SINGLE_TERMS if single else DOUBLE_TERMS:
            coefficients, self.error = fit_smooth_part(alpha, cutoff, terms)
            if self.error <= tolerance:
                break
        self.coefficients = coefficients.astype(kind)
        self._reach(alpha, cutoff)

    def scaled(self, factor: float) -> ScreenedPairs:
        """The sum with alpha / factor and the cutoff times `factor`: alpha r is what it was, so the polynomial stays."""
        pairs = copy.copy(self)
        pairs._reach(self.alpha / factor, self.cutoff * factor)
        return pairs

    def _reach(self, alpha: float, cutoff: float) -> None:
        kind, square = self.coefficients.dtype.type, cutoff**2
        self.alpha, self.cutoff = alpha, cutoff
        self.constants = tuple(kind(v) for v in (square, 2 / square, alpha, 4 * alpha / square, 1.0, 0.0))

    def start(self, positions: Array, charges: Array, near: LatticeList, virial: bool = False) -> DirectSum:
        """The direct sum of positions [atoms, 3], cut into parts that any threads may compute in any order."""
        atoms, images = len(charges), near.source.size
        extended, all_charges = np.empty((3, atoms + images)), np.empty(atoms + images)
        _extend(positions, charges, near.order, near.offset, near.source, near.shift, extended, all_charges)
        forces, potentials = np.empty((atoms, 3)), np.empty(atoms)
        virials = np.zeros((near.first.size - 1, 6))
        run = _direct_kernel(len(self.coefficients))

        def part(begin: int, end: int) -> None:
            run(
                extended, all_charges, near.order, near.first, near.start, near.entries, near.widest, self.constants,
                self.coefficients, virial, begin, end, forces, potentials, virials,
            )  # fmt: skip

        return DirectSum(forces, potentials, virials, part)


@dataclass(frozen=True)
class DirectSum:
    """A direct sum under way. Every number is computed by one part, in one order: the same bits for any threads.

    forces [atoms, 3], potentials [atoms] and virials [clusters, 6] are complete once `part` has run over all clusters.
    """

    forces: Array
    potentials: Array
    virials: Array
    part: Callable[[int, int], None]

    @property
    def clusters(self) -> int:
        """How many clusters there are to run over."""
        return len(self.virials)

    def virial(self) -> Array:
        """The virial, [3, 3]."""
        xx, yy, zz, yz, xz, xy = self.virials.sum(axis=0)
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
