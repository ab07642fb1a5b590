"""What a system of molecules is made of: atoms, terms, exclusions, rigid bonds. No coordinates, no box.

Units throughout the engine: nm, kJ/mol, u, e; so times are in ps and temperatures are k_B T in kJ/mol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.bonded import BondedTerms
from manybody.numerics.constraints import Constraints
from manybody.numerics.nonbonded import COULOMB, ListedPairs

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


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
    bonded: Mapping[str, tuple[BondedTerms, ...]]
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
    atoms, lengths, kept = [], [], []
    for terms in topology.bonded["bond"]:
        light = (topology.numbers[terms.atoms] == 1).any(axis=1) & (terms.form == "harmonic-bond")
        atoms.append(terms.atoms[light])
        lengths.append(terms.parameters[light, 1])
        kept.append(replace(terms, atoms=terms.atoms[~light], parameters=terms.parameters[~light]))
    rigid = replace(topology.constraints, bonds=np.concatenate(atoms), lengths=np.concatenate(lengths))
    return replace(topology, bonded={**topology.bonded, "bond": tuple(kept)}, constraints=rigid)
