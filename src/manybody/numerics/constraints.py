"""Rigid bonds: positions and velocities are brought back to where every constrained distance is what it should be.

Water, three atoms with three fixed distances, is solved in closed form (SETTLE); anything else by iteration (SHAKE for
positions, RATTLE for velocities). With g_c = |x_i - x_j|^2 - d_c^2 = 0 the corrections are along the bonds as they were
before the step, weighted by the inverse masses:

    x_i += (1/m_i) sum_c lambda_c (x_i - x_j)_before,        velocities: (v_i - v_j) . (x_i - x_j) = 0 for every c.

Sources: S. Miyamoto and P. A. Kollman, J. Comput. Chem. 13, 952 (1992) (SETTLE); J.-P. Ryckaert, G. Ciccotti and H. J. C.
Berendsen, J. Comput. Phys. 23, 327 (1977) (SHAKE); H. C. Andersen, J. Comput. Phys. 52, 24 (1983) (RATTLE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, ManybodyError, Problem
from manybody.numerics.jit import exact_kernel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 1e-12  # of a squared distance, relative: about what double precision leaves at 50 nm from the origin
MOST_SWEEPS = 1000  # a bond network of a molecule takes some tens


class ConstraintError(ManybodyError):
    """A constraint cannot be satisfied; `atom` is one of its atoms."""

    def __init__(self, atom: int, partner: int) -> None:
        self.atom, self.partner = atom, partner
        super().__init__(f"the rigid bond between atoms {atom} and {partner} cannot be satisfied")


# --- water -----------------------------------------------------------------------------------------------------


@exact_kernel
def settle(before: Array, x: Array, waters: Indices, masses: Array, legs: Array, bases: Array) -> int:
    """Bring the molecules `waters` [molecules, 3] (apex first) of x [atoms, 3] back to their shape, in place.

    before: positions that have it; legs, bases [molecules]: distance of the apex to the two others, and of these to each
    other. The two others have equal masses. Returns the first molecule for which there is no solution, or -1.
    """
    axes, b, c = np.empty((3, 3)), np.empty(3), np.empty(3)
    a1, b1, c1, centre = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    bp, cp, ap = np.empty(3), np.empty(3), np.empty(3)
    for w in range(waters.shape[0]):
        o, h, g = waters[w, 0], waters[w, 1], waters[w, 2]
        total = masses[o] + 2.0 * masses[h]
        for d in range(3):
            b[d], c[d] = before[h, d] - before[o, d], before[g, d] - before[o, d]
            # all relative to where the apex was, which keeps the digits of what is small
            a1[d], b1[d], c1[d] = x[o, d] - before[o, d], x[h, d] - before[o, d], x[g, d] - before[o, d]
            centre[d] = (masses[o] * a1[d] + masses[h] * (b1[d] + c1[d])) / total
            a1[d] -= centre[d]
            b1[d] -= centre[d]
            c1[d] -= centre[d]
        _frame(b, c, a1, axes)
        bx = axes[0, 0] * b[0] + axes[0, 1] * b[1] + axes[0, 2] * b[2]
        by = axes[1, 0] * b[0] + axes[1, 1] * b[1] + axes[1, 2] * b[2]
        cx = axes[0, 0] * c[0] + axes[0, 1] * c[1] + axes[0, 2] * c[2]
        cy = axes[1, 0] * c[0] + axes[1, 1] * c[1] + axes[1, 2] * c[2]
        for d in range(3):
            ap[d] = axes[d, 0] * a1[0] + axes[d, 1] * a1[1] + axes[d, 2] * a1[2]
            bp[d] = axes[d, 0] * b1[0] + axes[d, 1] * b1[1] + axes[d, 2] * b1[2]
            cp[d] = axes[d, 0] * c1[0] + axes[d, 1] * c1[1] + axes[d, 2] * c1[2]
        half = 0.5 * bases[w]
        height = math.sqrt(legs[w] ** 2 - half**2)
        ra = height * 2.0 * masses[h] / total
        rb = height - ra
        sin_phi = ap[2] / ra
        cos_phi = math.sqrt(1.0 - sin_phi**2)
        sin_psi = (bp[2] - cp[2]) / (2.0 * half * cos_phi)
        cos_psi = math.sqrt(1.0 - sin_psi**2)
        ya, xb = ra * cos_phi, -half * cos_psi
        yb, yc = -rb * cos_phi - half * sin_psi * sin_phi, -rb * cos_phi + half * sin_psi * sin_phi
        # the base as it comes out is not exactly the one wanted, because of round-off
        xb = -0.5 * math.sqrt(bases[w] ** 2 - (yb - yc) ** 2 - (bp[2] - cp[2]) ** 2)
        alpha = xb * (bx - cx) + by * yb + cy * yc
        beta = xb * (cy - by) + bx * yb + cx * yc
        gamma = bx * bp[1] - bp[0] * by + cx * cp[1] - cp[0] * cy
        square = alpha**2 + beta**2
        sin_theta = (alpha * gamma - beta * math.sqrt(square - gamma**2)) / square
        cos_theta = math.sqrt(1.0 - sin_theta**2)
        ap[0], ap[1] = -ya * sin_theta, ya * cos_theta
        bp[0], bp[1] = xb * cos_theta - yb * sin_theta, xb * sin_theta + yb * cos_theta
        cp[0], cp[1] = -xb * cos_theta - yc * sin_theta, -xb * sin_theta + yc * cos_theta
        if not math.isfinite(ap[0] + bp[0] + cp[0]):
            return w
        for d in range(3):
            origin = before[o, d] + centre[d]
            x[o, d] = origin + axes[0, d] * ap[0] + axes[1, d] * ap[1] + axes[2, d] * ap[2]
            x[h, d] = origin + axes[0, d] * bp[0] + axes[1, d] * bp[1] + axes[2, d] * bp[2]
            x[g, d] = origin + axes[0, d] * cp[0] + axes[1, d] * cp[1] + axes[2, d] * cp[2]
    return -1


@exact_kernel
def _frame(b: Array, c: Array, a1: Array, axes: Array) -> None:
    """The axes of SETTLE as rows: z across the plane of b and c, x across a1 and z, y across both."""
    _unit_cross(b, c, axes[2])
    _unit_cross(a1, axes[2], axes[0])
    _unit_cross(axes[2], axes[0], axes[1])


@exact_kernel
def _unit_cross(a: Array, b: Array, out: Array) -> None:
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]
    length = math.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)
    for d in range(3):
        out[d] /= length


@exact_kernel
def settle_velocities(x: Array, v: Array, waters: Indices, masses: Array) -> None:
    """Take off v [atoms, 3] what would change the shape of the molecules `waters` of x, in place.

    The three multipliers of a molecule solve a symmetric system of three equations, here by Cramer's rule.
    """
    e, rhs = np.empty((3, 3)), np.empty(3)
    for w in range(waters.shape[0]):
        o, h, g = waters[w, 0], waters[w, 1], waters[w, 2]
        a, b = 1.0 / masses[o], 1.0 / masses[h]
        for d in range(3):  # bonds o-h, o-g, h-g
            e[0, d], e[1, d], e[2, d] = x[o, d] - x[h, d], x[o, d] - x[g, d], x[h, d] - x[g, d]
        for n in range(3):
            i, j = (h, g) if n == 2 else (o, h if n == 0 else g)
            rhs[n] = 0.0
            for d in range(3):
                rhs[n] += e[n, d] * (v[i, d] - v[j, d])
        e00, e11, e22 = _dot(e[0], e[0]), _dot(e[1], e[1]), _dot(e[2], e[2])
        e01, e02, e12 = _dot(e[0], e[1]), _dot(e[0], e[2]), _dot(e[1], e[2])
        m00, m11, m22 = (a + b) * e00, (a + b) * e11, 2.0 * b * e22
        m01, m02, m12 = a * e01, -b * e02, b * e12
        k00, k01, k02 = m11 * m22 - m12 * m12, m02 * m12 - m01 * m22, m01 * m12 - m02 * m11
        k11, k12, k22 = m00 * m22 - m02 * m02, m01 * m02 - m00 * m12, m00 * m11 - m01 * m01
        determinant = m00 * k00 + m01 * k01 + m02 * k02
        l0 = (k00 * rhs[0] + k01 * rhs[1] + k02 * rhs[2]) / determinant
        l1 = (k01 * rhs[0] + k11 * rhs[1] + k12 * rhs[2]) / determinant
        l2 = (k02 * rhs[0] + k12 * rhs[1] + k22 * rhs[2]) / determinant
        for d in range(3):
            v[o, d] -= a * (l0 * e[0, d] + l1 * e[1, d])
            v[h, d] -= b * (l2 * e[2, d] - l0 * e[0, d])
            v[g, d] += b * (l1 * e[1, d] + l2 * e[2, d])


@exact_kernel
def _dot(a: Array, b: Array) -> float:
    return float(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


# --- any bonds -------------------------------------------------------------------------------------------------


@exact_kernel
def shake(before: Array, x: Array, bonds: Indices, lengths: Array, masses: Array, tolerance: float, sweeps: int) -> int:
    """Bring the bonds [bonds, 2] of x [atoms, 3] back to their lengths, in place; returns a bond that was not, or -1."""
    worst = -1
    for _ in range(sweeps):
        worst, error = -1, tolerance
        for n in range(bonds.shape[0]):
            i, j = bonds[n, 0], bonds[n, 1]
            square = along = 0.0
            for d in range(3):
                apart = x[i, d] - x[j, d]
                square += apart * apart
                along += apart * (before[i, d] - before[j, d])
            excess = (square - lengths[n] ** 2) / lengths[n] ** 2
            if not abs(excess) <= error:
                worst, error = n, abs(excess)
            if not along > 1e-6 * lengths[n] ** 2:  # turned by more than a right angle: there is no correction along it
                return n
            push = (square - lengths[n] ** 2) / (2.0 * along * (1.0 / masses[i] + 1.0 / masses[j]))
            for d in range(3):
                apart = before[i, d] - before[j, d]
                x[i, d] -= push / masses[i] * apart
                x[j, d] += push / masses[j] * apart
        if worst < 0:
            return -1
    return worst


@exact_kernel
def rattle(x: Array, v: Array, bonds: Indices, lengths: Array, masses: Array, tolerance: float, sweeps: int) -> int:
    """Take off v [atoms, 3] what would change the bonds of x, in place; returns a bond whose length still changes, or -1."""
    scale = 0.0
    for i in range(v.shape[0]):
        for d in range(3):
            scale = max(scale, abs(v[i, d]))
    worst = -1
    for _ in range(sweeps):
        worst, error = -1, tolerance * scale
        for n in range(bonds.shape[0]):
            i, j = bonds[n, 0], bonds[n, 1]
            rate = 0.0
            for d in range(3):
                rate += (v[i, d] - v[j, d]) * (x[i, d] - x[j, d])
            if not abs(rate) <= error * lengths[n]:
                worst, error = n, abs(rate) / lengths[n]
            push = rate / (lengths[n] ** 2 * (1.0 / masses[i] + 1.0 / masses[j]))
            for d in range(3):
                apart = x[i, d] - x[j, d]
                v[i, d] -= push / masses[i] * apart
                v[j, d] += push / masses[j] * apart
        if worst < 0:
            return -1
    return worst


@dataclass(frozen=True)
class Constraints:
    """What is rigid: `waters` [molecules, 3], apex first, of `legs` and `bases` [molecules]; and `bonds` [bonds, 2] of `lengths`.

    masses: [atoms]. Methods work in place and raise `ConstraintError` where there is no solution.
    """

    masses: Array
    waters: Indices
    legs: Array
    bases: Array
    bonds: Indices
    lengths: Array

    def __post_init__(self) -> None:
        ends = self.masses[self.waters[:, 1:]]
        if (ends[:, 0] != ends[:, 1]).any():
            came = f"{ends[ends[:, 0] != ends[:, 1]][0].tolist()}"
            remedy = "Constrain this molecule's three bonds one by one."
            raise InputError(Problem("rigid water", "two equal masses besides the apex", came, remedy))

    @classmethod
    def none(cls, masses: Array) -> Constraints:
        """No rigid bond at all."""
        nothing = np.empty(0)
        return cls(masses, np.empty((0, 3), np.int64), nothing, nothing, np.empty((0, 2), np.int64), nothing)

    @property
    def count(self) -> int:
        """How many degrees of freedom are taken away."""
        return 3 * len(self.waters) + len(self.bonds)

    def place(self, before: Array, positions: Array) -> None:
        """Move positions [atoms, 3] onto the constraints, along the bonds of `before`, which satisfies them."""
        bad = settle(before, positions, self.waters, self.masses, self.legs, self.bases)
        if bad >= 0:
            raise ConstraintError(int(self.waters[bad, 0]), int(self.waters[bad, 1]))
        bad = shake(before, positions, self.bonds, self.lengths, self.masses, TOLERANCE, MOST_SWEEPS)
        if bad >= 0:
            raise ConstraintError(*(int(atom) for atom in self.bonds[bad]))

    def steer(self, positions: Array, velocities: Array) -> None:
        """Take off velocities [atoms, 3] what would violate the constraints at `positions`."""
        settle_velocities(positions, velocities, self.waters, self.masses)
        bad = rattle(positions, velocities, self.bonds, self.lengths, self.masses, TOLERANCE, MOST_SWEEPS)
        if bad >= 0:
            raise ConstraintError(*(int(atom) for atom in self.bonds[bad]))

    def violation(self, positions: Array) -> float:
        """The largest relative error of a constrained distance."""
        o, h, g = self.waters.T
        pairs = np.concatenate([np.stack([o, h], 1), np.stack([o, g], 1), np.stack([h, g], 1), self.bonds])
        lengths = np.concatenate([self.legs, self.legs, self.bases, self.lengths])
        apart = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
        return float(np.max(np.abs(apart / lengths - 1), initial=0.0))
