"""What a system of molecules is made of: atoms, terms, exclusions, rigid bonds. No coordinates, no box.

Units throughout the engine: nm, kJ/mol, u, e; so times are in ps and temperatures are k_B T in kJ/mol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.bonded import BondedTerms, Form
from manybody.numerics.constraints import Constraints
from manybody.numerics.formula_terms import FormulaTerms
from manybody.numerics.nonbonded import COULOMB, ListedPairs

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Terms = BondedTerms | FormulaTerms


@dataclass(frozen=True)
class Topology:
    """Atoms and how they interact.

    names, residues: an atom's name, and that of its residue, [atoms]; residue, molecule: their numbers, [atoms]. bonds:
    [bonds, 2], what holds the molecules together, with an energy, rigid, or neither.
    numbers: atomic numbers; masses, u; charges, e; species: rows of the tables c12, c6 (kJ/mol nm^12, nm^6), all [atoms].
    bonded: terms by name. excluded: pairs [pairs, 2] that interact through other terms only; pairs_14: those of them
    that still interact in part. constraints: what is rigid.
    """

    names: tuple[str, ...]
    residues: tuple[str, ...]
    residue: Indices
    molecule: Indices
    bonds: Indices
    numbers: Indices
    masses: Array
    charges: Array
    species: Indices
    c12: Array
    c6: Array
    bonded: Mapping[str, tuple[Terms, ...]]
    excluded: Indices
    pairs_14: ListedPairs
    constraints: Constraints

    @property
    def atoms(self) -> int:
        """How many atoms there are."""
        return len(self.masses)

    @property
    def molecules(self) -> int:
        """How many molecules there are."""
        return int(self.molecule.max()) + 1

    def listed(self, pairs: Indices) -> ListedPairs:
        """Pairs of atoms with the full interaction that charges and tables give them."""
        i, j = pairs[:, 0], pairs[:, 1]
        species = self.species[i], self.species[j]
        return ListedPairs(pairs, COULOMB * self.charges[i] * self.charges[j], self.c12[species], self.c6[species])

    def interacting(self) -> ListedPairs:
        """Every pair that is not excluded: what a molecule in vacuum is summed over. O(atoms^2)."""
        kept = np.triu(np.ones((self.atoms, self.atoms), dtype=bool), 1)
        low, high = np.sort(self.excluded, axis=1).T
        kept[low, high] = False
        return self.listed(np.argwhere(kept))


def connected(atoms: int, bonds: Indices) -> Indices:
    """The number of the molecule that each atom belongs to, from bonds [bonds, 2]; molecules in order of their first atom."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(atoms, atoms))
    labels = connected_components(graph, directed=False)[1]
    first = np.unique(labels, return_index=True)[1]
    rank = np.empty(len(first), np.int64)
    rank[labels[np.sort(first)]] = np.arange(len(first))
    return np.asarray(rank[labels])


def along_bonds(atoms: int, bonds: Indices, most: int = 3) -> tuple[Indices, Indices]:
    """The pairs [pairs, 2] that are 1 .. `most` bonds apart, lower atom first, and the least number of bonds [pairs]."""
    near: list[set[int]] = [set() for _ in range(atoms)]
    for first, second in bonds.tolist():
        near[first].add(second)
        near[second].add(first)
    pairs, counts = [], []
    for atom in range(atoms):
        seen, edge = {atom}, {atom}
        for count in range(1, most + 1):
            edge = {other for member in edge for other in near[member]} - seen
            seen |= edge
            for other in sorted(edge):
                if other > atom:
                    pairs.append((atom, other))
                    counts.append(count)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(counts, dtype=np.int64)


def with_rigid_hydrogens(topology: Topology) -> Topology:
    """The topology with the harmonic bonds to hydrogen made rigid at their rest lengths, and their energies gone."""
    atoms, lengths = [np.empty((0, 2), np.int64)], [np.empty(0)]
    kept: list[Terms] = []
    for terms in topology.bonded["bond"]:
        if terms.form != "harmonic-bond":
            kept.append(terms)
            continue
        light = (topology.numbers[terms.atoms] == 1).any(axis=1)
        atoms.append(terms.atoms[light])
        lengths.append(terms.parameters[light, 1])
        kept.append(replace(terms, atoms=terms.atoms[~light], parameters=terms.parameters[~light]))
    rigid = replace(topology.constraints, bonds=np.concatenate(atoms), lengths=np.concatenate(lengths))
    return replace(topology, bonded={**topology.bonded, "bond": tuple(kept)}, constraints=rigid)


def with_rigid_water(topology: Topology, only_held: bool = False) -> Topology:
    """The topology with every molecule H-O-H made rigid at its rest lengths, and the energies inside it gone.

    Its shape is that of its two bonds, and of a bond between its hydrogens or else of its angle; molecules with neither, or
    with unequal bonds, stay as they are. only_held: just those whose hydrogens are bonded to each other.
    """
    waters, legs, bases = _waters(topology, only_held)
    inside = np.zeros(topology.atoms, dtype=bool)
    inside[waters] = True

    def outside(terms: Terms) -> Terms:
        kept = ~inside[terms.atoms[:, 0]]
        return replace(terms, atoms=terms.atoms[kept], parameters=terms.parameters[kept])

    bonded = {name: tuple(outside(terms) for terms in group) for name, group in topology.bonded.items()}
    held = topology.constraints
    rigid = replace(
        held,
        waters=np.concatenate([held.waters, waters]),
        legs=np.concatenate([held.legs, legs]),
        bases=np.concatenate([held.bases, bases]),
    )
    return replace(topology, bonded=bonded, constraints=rigid)


def _waters(topology: Topology, only_held: bool) -> tuple[Indices, Array, Array]:
    """Waters [waters, 3] by their atoms, oxygen first, their O-H and their H-H distances."""
    bonds = _rest(topology, "bond", "harmonic-bond", (0, 1))
    angles = _rest(topology, "angle", "harmonic-angle", (0, 2))
    order = np.argsort(topology.molecule, kind="stable")
    starts = np.flatnonzero(np.diff(topology.molecule[order], prepend=-1))
    found: list[tuple[list[int], float, float]] = []
    for first in starts[np.diff(starts, append=topology.atoms) == 3]:
        atoms = order[first : first + 3]
        oxygen, *ends = atoms[np.argsort(-topology.numbers[atoms], kind="stable")].tolist()
        if topology.numbers[[oxygen, *ends]].tolist() != [8, 1, 1]:
            continue
        lengths = {bonds.get((min(oxygen, end), max(oxygen, end))) for end in ends}
        length, across, angle = lengths.pop(), bonds.get(tuple(ends)), angles.get(tuple(ends))
        if lengths or length is None or (across is None and (only_held or angle is None)):
            continue
        found.append(([oxygen, *ends], length, across or 2 * length * math.sin(0.5 * (angle or 0.0))))
    waters = np.array([row[0] for row in found], dtype=np.int64).reshape(-1, 3)
    return waters, np.array([row[1] for row in found]), np.array([row[2] for row in found])


def _rest(topology: Topology, name: str, form: Form, ends: tuple[int, int]) -> dict[tuple[int, ...], float]:
    """The rest lengths or angles of the terms of one form, by the atoms at their ends, lower first."""
    groups = [terms for terms in topology.bonded.get(name, ()) if terms.form == form]
    rows = [np.sort(terms.atoms[:, ends], axis=1).tolist() for terms in groups]
    values = [terms.parameters[:, 1].tolist() for terms in groups]
    return {tuple(row): value for r, v in zip(rows, values, strict=True) for row, value in zip(r, v, strict=True)}


def made_whole(positions: Array, bonds: Indices, cell: Array) -> Array:
    """Positions [atoms, 3] in a cell [3, 3], moved by whole vectors of it so that bonds [bonds, 2] cross no face of it.

    The first atom of each molecule stays. Raises `ValueError` where a molecule is bonded to its own image.
    """
    near: list[list[int]] = [[] for _ in positions]
    for first, second in bonds.tolist():
        near[first].append(second)
        near[second].append(first)
    whole, seen = positions.copy(), np.zeros(len(positions), dtype=bool)
    for start in range(len(positions)):
        queue = [] if seen[start] else [start]
        seen[start] = True
        for atom in queue:  # it grows as atoms are reached
            for other in near[atom]:
                if not seen[other]:
                    whole[other] -= _hop(positions[other] - whole[atom], cell)
                    seen[other] = True
                    queue.append(other)
    apart = whole[bonds[:, 0]] - whole[bonds[:, 1]]
    if (np.abs(apart) > 0.5 * cell.diagonal()).any():
        raise ValueError("a molecule is bonded to its own image")
    return whole


def _hop(apart: Array, cell: Array) -> Array:
    """The lattice vector [3] of a lower-triangular cell that brings `apart` [3] within half its diagonal when taken off."""
    hop = np.zeros(3)
    for row in (2, 1, 0):
        hop += np.round((apart - hop)[row] / cell[row, row]) * cell[row]
    return hop
