"""Embedded atoms: a many-body potential by rows of neighbours (CSR), compiled, beside the same formula in plain torch.

E = sum_i F_i(rho_i) + sum_(pairs) phi_ij(r_ij),  rho_i = sum_j rho_ji(r_ij),

with rho_ji what an atom of the species of j adds at one of the species of i, all three functions tables of cubic
polynomials on even knots. The force of a pair is

-[phi_ij'(r) + F_i'(rho_i) rho_ji'(r) + F_j'(rho_j) rho_ij'(r)].

Source: M. S. Daw and M. I. Baskes, Phys. Rev. B 29, 6443 (1984).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from manybody.numerics.jit import kernel
from manybody.numerics.lattice_list import LatticeList, lattice_list

Array = NDArray[np.float64]
Integers = NDArray[np.int32]
SKIN = 0.5  # length units that the rows reach further than the cutoff: speed, not physics


@dataclass(frozen=True)
class EmbeddedAtoms:
    """The tables of a potential for some species.

    density [species, species, knots, 4]: what the first adds at the second; pair [species, species, knots, 4];
    embedding [species, knots, 4]: polynomials in the distance from their knot. spacing: of the knots in r, step: in rho.
    """

    density: Array
    pair: Array
    embedding: Array
    spacing: float
    step: float
    cutoff: float

    @property
    def densest(self) -> float:
        """The largest density that the table of the embedding energy has."""
        return float(self.step * self.embedding.shape[1])


def polynomials(values: Array, spacing: float, first: float = 0.0) -> Array:
    """The spline through values [.., knots] at ``first + k spacing``, not-a-knot, as polynomials [.., knots - 1, 4] about
    0, spacing, 2 spacing, ..; where `first` is one spacing the first polynomial also serves below it, with one row more.
    """
    knots = first + spacing * np.arange(values.shape[-1])
    rows = CubicSpline(knots, values, axis=-1).c  # [4, intervals, ..], highest power first
    found = np.moveaxis(rows[::-1], (0, 1), (-1, -2))
    if first:
        a, b, c, d = np.moveaxis(found[..., 0, :], -1, 0)
        h = spacing
        below = np.stack([a - h * (b - h * (c - h * d)), b - h * (2 * c - 3 * h * d), c - 3 * h * d, d], axis=-1)
        found = np.concatenate([below[..., None, :], found], axis=-2)
    return np.ascontiguousarray(found)


# --- the formula ---------------------------------------------------------------------------------------------------


def tabulated(table: Tensor, spacing: float, x: Tensor) -> Tensor:
    """Polynomials of a table [n, knots, 4] at x [n], each from its own row."""
    place = (x.detach() / spacing).long().clamp(0, table.shape[1] - 1)
    c = table[torch.arange(len(x)), place]
    t = x - place.to(x.dtype) * spacing
    return c[:, 0] + t * (c[:, 1] + t * (c[:, 2] + t * c[:, 3]))


def energy(tables: EmbeddedAtoms, positions: Tensor, species: Tensor, pairs: Tensor, shifts: Tensor) -> Tensor:
    """E = sum_i F_i(rho_i) + sum_pairs phi_ij, by plain torch.

    positions [atoms, 3]; species [atoms]; pairs [2, pairs], each once, shifts [pairs, 3] what the second is moved by.
    """
    i, j = pairs
    r = torch.linalg.norm(positions[j] + shifts - positions[i], dim=1)
    near = r.detach() < tables.cutoff
    i, j, r = i[near], j[near], r[near]
    density, pair, embedding = (torch.from_numpy(table) for table in (tables.density, tables.pair, tables.embedding))
    rho = torch.zeros(len(positions), dtype=r.dtype)
    rho = rho.index_add(0, i, tabulated(density[species[j], species[i]], tables.spacing, r))
    rho = rho.index_add(0, j, tabulated(density[species[i], species[j]], tables.spacing, r))
    embedded = tabulated(embedding[species], tables.step, rho).sum()
    return embedded + tabulated(pair[species[i], species[j]], tables.spacing, r).sum()


# --- rows of neighbours ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Every pair within reach once, or of `whole_rows` twice: the partners of sorted atom i, among sorted atoms and the ghosts
    behind them, are ``partner[start[i] : start[i + 1]]``."""

    listed: LatticeList
    start: NDArray[np.int64]
    partner: Integers

    def still_hold(self, positions: Array) -> bool:
        """Whether no atom has moved by more than half the skin."""
        return self.listed.still_holds(positions)

    def extended(self, positions: Array) -> Array:
        """Coordinates [3, atoms + ghosts] of positions [atoms, 3], sorted."""
        listed = self.listed
        x = positions[listed.order].T - listed.offset
        return np.ascontiguousarray(np.concatenate([x, x[:, listed.source] + listed.shift], axis=1))

    def pairs(self) -> tuple[NDArray[np.int64], Array]:
        """All pairs by atom [2, pairs], and what the second of each is moved by [pairs, 3]; `positions` as they are given."""
        listed, atoms = self.listed, len(self.start) - 1
        i, e = np.repeat(np.arange(atoms), np.diff(self.start)), self.partner.astype(np.int64)
        source = np.concatenate([np.arange(atoms), listed.source])
        shift = np.concatenate([np.zeros((3, atoms)), listed.shift], axis=1)
        moved = shift[:, e] - listed.offset[:, source[e]] + listed.offset[:, i]
        return np.stack([listed.order[i], listed.order[source[e]]]).astype(np.int64), np.ascontiguousarray(moved.T)


def rows_within(positions: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float, skin: float = SKIN) -> Rows:
    """The rows of positions [atoms, 3] in a cell [3, 3] that is periodic where `pbc` [3] says so."""
    return _listed(positions, cell, pbc, cutoff, skin, whole=False)


def whole_rows(positions: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float, skin: float = SKIN) -> Rows:
    """As `rows_within`, with every pair in the rows of both its atoms."""
    return _listed(positions, cell, pbc, cutoff, skin, whole=True)


def _listed(positions: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float, skin: float, whole: bool) -> Rows:
    listed = lattice_list(positions, enclosing(positions, cell, pbc, cutoff + skin), cutoff, skin)
    x = positions[listed.order].T - listed.offset
    extended = np.ascontiguousarray(np.concatenate([x, x[:, listed.source] + listed.shift], axis=1))
    near = (listed.source, listed.shift, listed.first, listed.start, listed.entries)
    start, partner = _rows(extended, *near, cutoff + skin, whole)
    return Rows(listed, start, partner)


class KeptRows:
    """Rows that are kept while they hold: no atom has moved by half the skin, cell and periodicity are the same."""

    def __init__(self, listing: Callable[[Array, Array, NDArray[np.bool_], float], Rows], cutoff: float) -> None:
        self.listing, self.cutoff = listing, cutoff
        self._kept: tuple[Rows, Array, NDArray[np.bool_]] | None = None

    def __call__(self, positions: Array, cell: Array, pbc: NDArray[np.bool_]) -> Rows:
        """Rows of positions [atoms, 3] in a cell [3, 3], periodic where `pbc` [3] says so."""
        if self._kept is not None:
            rows, for_cell, for_pbc = self._kept
            same = np.array_equal(for_cell, cell) and np.array_equal(for_pbc, pbc)
            if same and len(rows.start) == len(positions) + 1 and rows.still_hold(positions):
                return rows
        rows = self.listing(positions, cell, pbc, self.cutoff)
        self._kept = rows, cell.copy(), pbc.copy()
        return rows

    def forget(self) -> None:
        """Drop them."""
        self._kept = None


def enclosing(positions: Array, cell: Array, pbc: NDArray[np.bool_], reach: float) -> Array:
    """A cell with the periodic vectors of `cell`, and across them room for all atoms and `reach` more."""
    if pbc.all():
        return np.asarray(cell, dtype=np.float64)
    kept = cell[pbc]
    across = np.linalg.svd(kept, full_matrices=True)[2][len(kept) :] if len(kept) else np.eye(3)
    extent = np.ptp(positions @ across.T, axis=0) + 1.01 * reach
    whole = np.empty((3, 3))
    whole[pbc], whole[~pbc] = kept, across * extent[:, None]
    return whole


@kernel
def _is_listed(e: int, i: int, atoms: int, source: Integers, shift: Array) -> bool:
    """Whether a pair is listed by i: by the earlier of two atoms, by the image that is shifted up where both are one atom."""
    other = e if e < atoms else source[e - atoms]
    if other != i:
        return bool(other > i)
    up = 0.0
    for d in range(3):
        up = shift[d, e - atoms] if up == 0.0 else up
    return up >= 0.0


@kernel
def _rows(
    x: Array, source: Integers, shift: Array, first: Integers, begin: NDArray[np.int64], entries: Integers, reach: float,
    whole: bool,
) -> tuple[NDArray[np.int64], Integers]:  # fmt: skip
    """Each pair within reach, images of an atom itself among them: once, or from both sides where they are to be `whole`."""
    atoms = x.shape[1] - source.size
    start = np.zeros(atoms + 1, np.int64)
    partner = np.empty(0, np.int32)
    for turn in range(2):  # count, then fill
        size = 0
        for c in range(first.size - 1):
            for i in range(first[c], first[c + 1]):
                for k in range(begin[c], begin[c + 1]):
                    e = entries[k]
                    if e == i or not (whole or _is_listed(e, i, atoms, source, shift)):
                        continue
                    dx, dy, dz = x[0, e] - x[0, i], x[1, e] - x[1, i], x[2, e] - x[2, i]
                    if dx * dx + dy * dy + dz * dz < reach * reach:
                        if turn == 1:
                            partner[size] = e
                        size += 1
                start[i + 1] = size
        if turn == 0:
            partner = np.empty(size, np.int32)
    return start, partner


# --- energy and forces -----------------------------------------------------------------------------------------------


@kernel
def _densities(
    x: Array, start: NDArray[np.int64], partner: Integers, kind: Integers, table: Array, kinds: int, spacing: float,
    cutoff: float, rho: Array,
) -> None:  # fmt: skip
    """rho at every atom and ghost [atoms + ghosts], from the pairs they are listed in; table [kinds * kinds * knots, 4]."""
    knots = table.shape[0] // (kinds * kinds)
    for i in range(start.size - 1):
        own = 0.0
        for k in range(start[i], start[i + 1]):
            e = partner[k]
            dx, dy, dz = x[0, e] - x[0, i], x[1, e] - x[1, i], x[2, e] - x[2, i]
            square = dx * dx + dy * dy + dz * dz
            if square >= cutoff * cutoff:
                continue
            r = math.sqrt(square)
            place = min(int(r / spacing), knots - 1)
            t = r - place * spacing
            c = (kind[e] * kinds + kind[i]) * knots + place
            given = table[c, 0] + t * (table[c, 1] + t * (table[c, 2] + t * table[c, 3]))
            own += given
            if kinds > 1:
                c = (kind[i] * kinds + kind[e]) * knots + place
                given = table[c, 0] + t * (table[c, 1] + t * (table[c, 2] + t * table[c, 3]))
            rho[e] += given
        rho[i] += own


@kernel
def _embed(rho: Array, source: Integers, kind: Integers, table: Array, step: float) -> tuple[float, int]:
    """The embedding energy, and -1 or an atom whose density is beyond the table; rho [atoms + ghosts] becomes F'(rho)."""
    atoms, knots, total = rho.size - source.size, table.shape[1], 0.0
    for g in range(source.size):
        rho[source[g]] += rho[atoms + g]
    for i in range(atoms):
        if not 0.0 <= rho[i] <= knots * step:
            return math.nan, i
        place, a = min(int(rho[i] / step), knots - 1), kind[i]
        t = rho[i] - place * step
        total += table[a, place, 0] + t * (table[a, place, 1] + t * (table[a, place, 2] + t * table[a, place, 3]))
        rho[i] = table[a, place, 1] + t * (2.0 * table[a, place, 2] + 3.0 * t * table[a, place, 3])
    for g in range(source.size):
        rho[atoms + g] = rho[source[g]]
    return total, -1


@kernel
def _pair_forces(
    x: Array, start: NDArray[np.int64], partner: Integers, kind: Integers, density: Array, pair: Array, kinds: int,
    spacing: float, cutoff: float, slope: Array, forces: Array, virial: Array,
) -> float:  # fmt: skip
    """The pair energy; forces [3, atoms + ghosts] and sum of r f [6] (xx, yy, zz, yz, xz, xy) of every pair, added."""
    knots, total = pair.shape[0] // (kinds * kinds), 0.0
    for i in range(start.size - 1):
        fx = fy = fz = 0.0
        for k in range(start[i], start[i + 1]):
            e = partner[k]
            dx, dy, dz = x[0, e] - x[0, i], x[1, e] - x[1, i], x[2, e] - x[2, i]
            square = dx * dx + dy * dy + dz * dz
            if square >= cutoff * cutoff:
                continue
            r = math.sqrt(square)
            place = min(int(r / spacing), knots - 1)
            t = r - place * spacing
            c = (kind[e] * kinds + kind[i]) * knots + place
            total += pair[c, 0] + t * (pair[c, 1] + t * (pair[c, 2] + t * pair[c, 3]))
            steep = pair[c, 1] + t * (2.0 * pair[c, 2] + 3.0 * t * pair[c, 3])
            rise = density[c, 1] + t * (2.0 * density[c, 2] + 3.0 * t * density[c, 3])
            steep += slope[i] * rise
            if kinds > 1:
                c = (kind[i] * kinds + kind[e]) * knots + place
                rise = density[c, 1] + t * (2.0 * density[c, 2] + 3.0 * t * density[c, 3])
            steep = (steep + slope[e] * rise) / r
            px, py, pz = steep * dx, steep * dy, steep * dz
            fx, fy, fz = fx + px, fy + py, fz + pz
            forces[0, e] -= px
            forces[1, e] -= py
            forces[2, e] -= pz
            virial[0] += px * dx
            virial[1] += py * dy
            virial[2] += pz * dz
            virial[3] += py * dz
            virial[4] += px * dz
            virial[5] += px * dy
        forces[0, i] += fx
        forces[1, i] += fy
        forces[2, i] += fz
    return total


def evaluate(tables: EmbeddedAtoms, positions: Array, species: Integers, rows: Rows) -> tuple[float, Array, Array, int]:
    """Energy; forces [atoms, 3]; strain derivative of the energy [3, 3]; and an atom.

    The atom is -1, or the first whose density is beyond the table, which is so where atoms overlap; nothing else counts then.
    """
    listed, atoms = rows.listed, len(positions)
    x = rows.extended(positions)
    sorted_kind = species[listed.order]
    kind = np.concatenate([sorted_kind, sorted_kind[listed.source]])
    rho, sorted_forces, virial = np.zeros(x.shape[1]), np.zeros_like(x), np.zeros(6)
    density, pair, kinds = tables.density.reshape(-1, 4), tables.pair.reshape(-1, 4), len(tables.embedding)
    _densities(x, rows.start, rows.partner, kind, density, kinds, tables.spacing, tables.cutoff, rho)
    total, bad = _embed(rho, listed.source, kind, tables.embedding, tables.step)
    if bad >= 0:
        return math.nan, np.zeros((atoms, 3)), np.zeros((3, 3)), int(listed.order[bad])
    total += _pair_forces(
        x, rows.start, rows.partner, kind, density, pair, kinds, tables.spacing, tables.cutoff,
        rho, sorted_forces, virial,
    )  # fmt: skip
    folded = sorted_forces[:, :atoms]
    for axis in range(3):
        folded[axis] += np.bincount(listed.source, sorted_forces[axis, atoms:], minlength=atoms)
    forces = np.empty((atoms, 3))
    forces[listed.order] = folded.T
    xx, yy, zz, yz, xz, xy = virial
    return total, forces, np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), -1
