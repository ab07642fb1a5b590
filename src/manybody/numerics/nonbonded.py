"""Lennard-Jones and cut Coulomb forces between the atoms of molecules: many species, a smooth cutoff, pairs left out.

    u_LJ(r) = (C12 / r^12 - C6 / r^6) S(r),     S = 1 - 10 t^3 + 15 t^4 - 6 t^5,  t = (r - r_s) / (r_c - r_s) in 0 .. 1
    u_RF(r) = K q_i q_j (1/r + k r^2 - c),      k = (e - 1) / ((2 e + 1) r_c^3),  c = 3 e / ((2 e + 1) r_c)

C12 and C6 come from a table of pairs of species, so any mixing rule can be used; S makes energy and force go to zero
between r_s and r_c (no switch where r_s = r_c); e is the permittivity beyond the cutoff, infinite for a conductor. Energies
in kJ/mol, lengths in nm, charges in e where K = `COULOMB`; nothing else here knows a unit.

Sources: reaction field, I. G. Tironi et al., J. Chem. Phys. 102, 5451 (1995); long-range correction, M. P. Allen and
D. J. Tildesley, Computer Simulation of Liquids, 2nd ed. (2017), section 2.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.jit import exact_kernel, kernel
from manybody.numerics.lattice_list import LatticeList

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COULOMB = 138.93545764438198  # e^2 N_A / (4 pi epsilon_0), kJ nm / (mol e^2); CODATA 2018
LANES = 8  # double-precision numbers in the widest SIMD register
FAR = 1e6  # where atoms stand that only fill up a register, nm
_NODES = 64  # of the quadrature over the switch: a polynomial times a power law, exact to round-off

# --- the formulas ----------------------------------------------------------------------------------------------


def lorentz_berthelot(sigma: Array, epsilon: Array) -> tuple[Array, Array]:
    """Tables C12, C6 [species, species] of 4 eps ((sigma/r)^12 - (sigma/r)^6): arithmetic mean of sigma, geometric of eps."""
    mixed = 0.5 * (sigma[:, None] + sigma[None, :])
    depth = 4 * np.sqrt(epsilon[:, None] * epsilon[None, :])
    return depth * mixed**12, depth * mixed**6


def switch(r: Tensor, begin: float, cutoff: float) -> Tensor:
    """S(r), 1 below `begin` and 0 beyond `cutoff`; elementwise."""
    if begin >= cutoff:
        return torch.where(r > cutoff, 0.0, 1.0).to(r)
    t = torch.clamp((r - begin) / (cutoff - begin), 0, 1)
    return 1 - t**3 * (10 - 15 * t + 6 * t**2)


def lennard_jones_energy(r: Tensor, c12: Tensor, c6: Tensor) -> Tensor:
    """C12 / r^12 - C6 / r^6, without a cutoff; elementwise."""
    return c12 / r**12 - c6 / r**6


def reaction_field_energy(r: Tensor, products: Tensor, k: float, c: float) -> Tensor:
    """K q_i q_j (1/r + k r^2 - c) with `products` = K q_i q_j; k = c = 0 is Coulomb's law; elementwise."""
    return products * (1 / r + k * r**2 - c)


def reaction_field(permittivity: float, cutoff: float) -> tuple[float, float]:
    """k and c for a medium of `permittivity` beyond the cutoff; infinity is a conductor."""
    if math.isinf(permittivity):
        return 0.5 / cutoff**3, 1.5 / cutoff
    below = 2 * permittivity + 1
    return (permittivity - 1) / below / cutoff**3, 3 * permittivity / below / cutoff


def long_range_correction(counts: Array, c12: Array, c6: Array, begin: float, cutoff: float) -> tuple[float, float]:
    """Energy and virial times volume of what the cutoff leaves out at g(r) = 1: sum_ab 2 pi N_a N_b int (u - u S) r^2 dr.

    counts: [species]. For the pressure the virial is 3 times the energy, and sum_ab 2 pi N_a N_b u(r_c) r_c^3 more where
    there is no switch, because the force at the jump is not felt.
    """
    pairs = 2 * math.pi * counts[:, None] * counts[None, :]
    repulsion, attraction = float((pairs * c12).sum()), float((pairs * c6).sum())
    energy = repulsion / (9 * cutoff**9) - attraction / (3 * cutoff**3)
    if begin >= cutoff:
        return energy, 3 * energy + repulsion / cutoff**9 - attraction / cutoff**3
    x, weights = np.polynomial.legendre.leggauss(_NODES)
    r = torch.from_numpy(begin + 0.5 * (cutoff - begin) * (x + 1))
    lost = (1 - switch(r, begin, cutoff)).numpy()
    integrand = lost * (repulsion / r.numpy() ** 10 - attraction / r.numpy() ** 4)
    energy += 0.5 * (cutoff - begin) * float(weights @ integrand)
    return energy, 3 * energy


# --- the compiled path -----------------------------------------------------------------------------------------


@exact_kernel
def _switched(r: float, u: float, slope: float, begin: float, cutoff: float) -> tuple[float, float]:
    """u S and its derivative by r, from u and its derivative."""
    if r <= begin:
        return u, slope
    t = (r - begin) / (cutoff - begin)
    factor = 1.0 - t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)
    steep = -30.0 * t * t * (1.0 - t) * (1.0 - t) / (cutoff - begin)
    return u * factor, slope * factor + u * steep


@exact_kernel
def _pair(
    r2: float, product: float, c12: float, c6: float, begin: float, cutoff: float, k: float, c: float
) -> tuple[float, float, float]:
    """Lennard-Jones energy, Coulomb energy, and force over distance of a pair."""
    inverse = 1.0 / r2
    sixth = inverse * inverse * inverse
    r = math.sqrt(r2)
    lennard_jones = (c12 * sixth - c6) * sixth
    slope = -(12.0 * c12 * sixth - 6.0 * c6) * sixth / r
    lennard_jones, slope = _switched(r, lennard_jones, slope, begin, cutoff)
    coulomb = product * (1.0 / r + k * r2 - c)
    return lennard_jones, coulomb, product * (inverse / r - 2.0 * k) - slope / r


@exact_kernel
def listed_pairs(
    x: Array, pairs: Indices, products: Array, c12: Array, c6: Array, begin: float, cutoff: float, k: float, c: float, f: Array,
    sign: float,
) -> tuple[float, float, float]:  # fmt: skip
    """`sign` times the Lennard-Jones energy, Coulomb energy and virial of the pairs [pairs, 2] within the cutoff.

    Forces times `sign` are added to f [atoms, 3]; products, c12 and c6 are [pairs]. No image is taken.
    """
    lennard_jones = coulomb = virial = 0.0
    for n in range(pairs.shape[0]):
        i, j = pairs[n, 0], pairs[n, 1]
        dx, dy, dz = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
        r2 = dx * dx + dy * dy + dz * dz
        if r2 > cutoff * cutoff:
            continue
        u, w, pull = _pair(r2, products[n], c12[n], c6[n], begin, cutoff, k, c)
        lennard_jones += u
        coulomb += w
        virial += pull * r2
        pull *= sign
        f[i, 0] += pull * dx
        f[i, 1] += pull * dy
        f[i, 2] += pull * dz
        f[j, 0] -= pull * dx
        f[j, 1] -= pull * dy
        f[j, 2] -= pull * dz
    return sign * lennard_jones, sign * coulomb, sign * virial


@kernel
def _gather(
    x: Array, charges: Array, entries: NDArray[np.int32], low: int, high: int, near: Array, members: NDArray[np.int32]
) -> int:  # fmt: skip
    """Copy the neighbours entries[low:high] and their charges into near [4, :], filled up with atoms far away; its length."""
    count = high - low
    padded = (count + LANES - 1) // LANES * LANES
    for m in range(count):
        j = entries[low + m]
        members[m] = j
        near[0, m], near[1, m], near[2, m], near[3, m] = x[0, j], x[1, j], x[2, j], charges[j]
    for m in range(count, padded):
        members[m] = entries[low] if count else 0
        near[0, m], near[1, m], near[2, m], near[3, m] = FAR, FAR, FAR, 0.0
    return padded


@kernel
def _pull_one(
    x: float, y: float, z: float, charge: float, near: Array, near12: Array, near6: Array, count: int,
    begin: float, narrow: float, cutoff: float, k: float, c: float,
) -> tuple[float, float, float, float, float, float]:  # fmt: skip
    """Force, Lennard-Jones energy, Coulomb energy and virial of one atom with `count` others; as `_pair`, without branches.

    `narrow` is the inverse width of the switch, 0 where there is none.
    """
    near_x, near_y, near_z, near_q = near[0], near[1], near[2], near[3]
    limit = cutoff * cutoff
    fx = fy = fz = lennard_jones = coulomb = virial = 0.0
    for m in range(count):
        dx, dy, dz = x - near_x[m], y - near_y[m], z - near_z[m]
        r2 = dx * dx + dy * dy + dz * dz
        inside = (r2 <= limit) & (r2 > 0.0)  # the atom itself is among its neighbours
        r2 = r2 if inside else limit
        product = charge * near_q[m] if inside else 0.0
        c12 = near12[m] if inside else 0.0
        c6 = near6[m] if inside else 0.0
        inverse = 1.0 / r2
        r = math.sqrt(r2)
        over_r = r * inverse
        sixth = inverse * inverse * inverse
        u = (c12 * sixth - c6) * sixth
        pull = (12.0 * c12 * sixth - 6.0 * c6) * sixth * inverse
        t = (r - begin) * narrow
        t = t if t > 0.0 else 0.0
        factor = 1.0 - t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)
        steep = 30.0 * t * t * (1.0 - t) * (1.0 - t) * narrow
        pull = pull * factor + u * steep * over_r
        lennard_jones += u * factor
        coulomb += product * (over_r + k * r2 - c)
        pull += product * (inverse * over_r - 2.0 * k)
        virial += pull * r2
        fx += pull * dx
        fy += pull * dy
        fz += pull * dz
    return fx, fy, fz, lennard_jones, coulomb, virial


@kernel
def near_pairs(
    x: Array, charges: Array, species: Indices, order: NDArray[np.int32], first: NDArray[np.int32],
    start: NDArray[np.int64], entries: NDArray[np.int32], widest: int, c12: Array, c6: Array,
    begin: float, narrow: float, cutoff: float, k: float, c: float, f: Array,
) -> tuple[float, float, float]:  # fmt: skip
    """Lennard-Jones energy, Coulomb energy and virial of all pairs of a neighbour list; forces go into f [atoms, 3].

    x [3, atoms + ghosts], charges (times sqrt K) and species [atoms + ghosts] are in the order of the list; f is not. The
    rows of the tables that a species needs are laid out next to its neighbours, once for atoms of one species in a row.
    """
    near, near12, near6 = np.empty((4, widest + LANES)), np.empty(widest + LANES), np.empty(widest + LANES)
    members = np.empty(widest + LANES, np.int32)
    lennard_jones = coulomb = virial = 0.0
    for cluster in range(first.size - 1):
        count = _gather(x, charges, entries, start[cluster], start[cluster + 1], near, members)
        laid_out = -1
        for a in range(first[cluster], first[cluster + 1]):
            if species[a] != laid_out:
                laid_out = species[a]
                for m in range(count):
                    near12[m], near6[m] = c12[laid_out, species[members[m]]], c6[laid_out, species[members[m]]]
            fx, fy, fz, u, w, share = _pull_one(
                x[0, a], x[1, a], x[2, a], charges[a], near, near12, near6, count, begin, narrow, cutoff, k, c
            )
            lennard_jones += u
            coulomb += w
            virial += share
            f[order[a], 0], f[order[a], 1], f[order[a], 2] = fx, fy, fz
    return 0.5 * lennard_jones, 0.5 * coulomb, 0.5 * virial


@dataclass(frozen=True)
class ListedPairs:
    """Pairs that are written down one by one: atoms [pairs, 2], products K q_i q_j, C12 and C6 [pairs]."""

    atoms: Indices
    products: Array
    c12: Array
    c6: Array

    def __post_init__(self) -> None:
        count = len(self.atoms)
        if self.atoms.shape[1:] != (2,) or any(len(v) != count for v in (self.products, self.c12, self.c6)):
            came = f"atoms {list(self.atoms.shape)} and {[len(v) for v in (self.products, self.c12, self.c6)]} parameters"
            raise InputError(Problem("listed pairs", "atoms [pairs, 2] and one parameter a pair", came, "Give one row a pair."))

    def energy(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Lennard-Jones and Coulomb energy without a cutoff, in plain torch: the oracle of the kernel.  positions: [atoms, 3]."""
        atoms, products, c12, c6 = (torch.from_numpy(v) for v in (self.atoms, self.products, self.c12, self.c6))
        r = torch.linalg.norm(positions[atoms[:, 0]] - positions[atoms[:, 1]], dim=1)
        return lennard_jones_energy(r, c12, c6).sum(), reaction_field_energy(r, products, 0.0, 0.0).sum()


@dataclass(frozen=True)
class CutPairs:
    """The pairs within a cutoff: tables C12, C6 [species, species], and a reaction field where `charges` are given.

    species [atoms]; charges [atoms] in e, or zeros; begin: where the switch of Lennard-Jones begins (the cutoff: no switch).
    """

    species: Indices
    charges: Array
    c12: Array
    c6: Array
    begin: float
    cutoff: float
    permittivity: float = 1.0

    @property
    def field(self) -> tuple[float, float]:
        """k and c of the reaction field."""
        return reaction_field(self.permittivity, self.cutoff)

    @property
    def members(self) -> Indices:
        """The atoms that take part at all: water's hydrogens, for one, have no Lennard-Jones."""
        lively = (self.c12 != 0).any(axis=1) | (self.c6 != 0).any(axis=1)
        return np.flatnonzero(lively[self.species] | (self.charges != 0))

    def add_forces(
        self, positions: Array, members: Indices, near: LatticeList, left_out: ListedPairs, forces: Array
    ) -> tuple[float, float, float]:
        """Lennard-Jones energy, Coulomb energy, virial; forces are added to `forces` [atoms, 3].

        `near` is a list of positions[members]; the pairs `left_out` are whole and do not interact.
        """
        names = members[near.order]
        everyone = np.concatenate([names, names[near.source]])
        inside = positions[names].T - near.offset
        x = np.concatenate([inside, inside[:, near.source] + near.shift], axis=1)
        k, c = self.field
        narrow = 0.0 if self.begin >= self.cutoff else 1.0 / (self.cutoff - self.begin)
        own = np.empty((len(members), 3))
        found = near_pairs(
            x, math.sqrt(COULOMB) * self.charges[everyone], self.species[everyone], near.order, near.first,
            near.start, near.entries, near.widest, self.c12, self.c6, self.begin, narrow, self.cutoff, k, c, own,
        )  # fmt: skip
        forces[members] += own
        off = listed_pairs(
            positions, left_out.atoms, left_out.products, left_out.c12, left_out.c6, self.begin, self.cutoff, k, c, forces, -1.0
        )
        return found[0] + off[0], found[1] + off[1], found[2] + off[2]

    def energy(self, positions: Tensor, box: Tensor, left_out: ListedPairs) -> tuple[Tensor, Tensor]:
        """Lennard-Jones and Coulomb energy in plain torch, nearest images only: the oracle.

        positions: [atoms, 3]; box: edges [3], or cell [3, 3], no two of whose faces are closer than twice the cutoff.
        """
        i, j = torch.triu_indices(len(positions), len(positions), 1)
        kept = torch.ones(len(positions), len(positions), dtype=torch.bool)
        excluded = torch.from_numpy(left_out.atoms)
        kept[excluded[:, 0], excluded[:, 1]] = kept[excluded[:, 1], excluded[:, 0]] = False
        i, j = i[kept[i, j]], j[kept[i, j]]
        apart = positions[i] - positions[j]
        cell = torch.diag(box) if box.ndim == 1 else box
        apart = apart - torch.round((apart @ torch.linalg.inv(cell)).detach()) @ cell
        r = torch.linalg.norm(apart, dim=1)
        near = r <= self.cutoff
        i, j, r = i[near], j[near], r[near]
        species, charges = torch.from_numpy(self.species), torch.from_numpy(self.charges)
        c12, c6 = (torch.from_numpy(table)[species[i], species[j]] for table in (self.c12, self.c6))
        lennard_jones = lennard_jones_energy(r, c12, c6) * switch(r, self.begin, self.cutoff)
        return lennard_jones.sum(), reaction_field_energy(r, COULOMB * charges[i] * charges[j], *self.field).sum()
