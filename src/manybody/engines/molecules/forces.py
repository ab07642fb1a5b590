"""All forces of a system of molecules, term by term."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from manybody.engines.molecules.topology import Array, Topology
from manybody.numerics.lattice_list import LatticeList, lattice_list
from manybody.numerics.nonbonded import COULOMB, CutPairs, ListedPairs, listed_pairs, long_range_correction
from manybody.numerics.pme import Exclusions, PMEPlan

NO_CUTOFF = 1e30


@dataclass(frozen=True)
class Evaluation:
    """Energies by term, kJ/mol; forces [atoms, 3], kJ/(mol nm); virial sum x . f of all but the rigid bonds, kJ/mol."""

    energies: dict[str, float]
    forces: Array
    virial: float

    @property
    def energy(self) -> float:
        """The sum of all terms."""
        return sum(self.energies.values())


@dataclass(frozen=True)
class NearLists:
    """Neighbour lists of the pairs within a cutoff and of the direct part of particle-mesh Ewald."""

    cut: LatticeList
    ewald: LatticeList | None


@dataclass(frozen=True)
class ForceField:
    """A topology in vacuum, where `cut` is None, or in a periodic box of edges `box` [3] along the unit vectors `shape` [3, 3].

    In a box: Lennard-Jones within the cutoff of `cut`, with the long-range correction where `tail` is set; Coulomb by
    `ewald`, or by the reaction field of `cut` where it is None. skin: how much further than the cutoffs the lists reach.
    """

    topology: Topology
    box: Array | None = None
    cut: CutPairs | None = None
    ewald: PMEPlan | None = None
    tail: bool = True
    skin: float = 0.1
    shape: Array = field(default_factory=lambda: np.eye(3))

    @property
    def cell(self) -> Array | None:
        """The vectors of the box as rows, [3, 3], nm; None in vacuum."""
        return None if self.box is None else self.shape * self.box[:, None]

    @property
    def volume(self) -> float:
        """Volume of the box, nm^3; 0 in vacuum."""
        return 0.0 if self.box is None else float(self.box.prod() * self.shape.diagonal().prod())

    @cached_property
    def _all_pairs(self) -> ListedPairs:
        return self.topology.interacting()

    @cached_property
    def _left_out(self) -> ListedPairs:
        """Excluded pairs as the cut pairs would count them; with Ewald their Coulomb part is taken off there."""
        found = self.topology.listed(self.topology.excluded)
        return found if self.ewald is None else ListedPairs(found.atoms, np.zeros_like(found.products), found.c12, found.c6)

    @cached_property
    def _members(self) -> np.ndarray:
        assert self.cut is not None
        return self.cut.members

    @cached_property
    def correction(self) -> tuple[float, float]:
        """Energy and virial of the Lennard-Jones pairs beyond the cutoff; 0, 0 without `tail`."""
        if self.cut is None or not self.tail:
            return 0.0, 0.0
        counts = np.bincount(self.cut.species, minlength=len(self.cut.c12)).astype(np.float64)
        energy, virial = long_range_correction(counts, self.cut.c12, self.cut.c6, self.cut.begin, self.cut.cutoff)
        return energy / self.volume, virial / self.volume

    def lists(self, positions: Array, near: NearLists | None = None) -> NearLists | None:
        """Neighbour lists that hold for positions [atoms, 3]: `near` as far as it does; None in vacuum."""
        if self.cut is None or self.cell is None:
            return None
        cut, ewald = (near.cut, near.ewald) if near else (None, None)
        inside = positions[self._members]
        if cut is None or not cut.still_holds(inside):
            cut = lattice_list(inside, self.cell, self.cut.cutoff, self.skin)
        return NearLists(cut, self.ewald.neighbours(positions, ewald) if self.ewald else None)

    def evaluate(self, positions: Array, near: NearLists | None = None) -> Evaluation:
        """Energies, forces and virial at positions [atoms, 3]; molecules are whole. `near` comes from `lists`."""
        forces, energies = np.zeros_like(positions), {}
        for name, group in self.topology.bonded.items():
            energies[name] = sum(terms.add_forces(positions, forces) for terms in group)
        virial = float((positions * forces).sum())
        scaled = self.topology.pairs_14
        energies["lennard_jones_14"], energies["coulomb_14"], share = _listed(positions, scaled, forces)
        virial += share
        if self.cut is None:
            energies["lennard_jones"], energies["coulomb"], share = _listed(positions, self._all_pairs, forces)
            return Evaluation(energies, forces, virial + share)
        near = near or self.lists(positions)
        assert near is not None
        energies["lennard_jones"], energies["coulomb"], share = self.cut.add_forces(
            positions, self._members, near.cut, self._left_out, forces
        )
        energies["lennard_jones"] += self.correction[0]
        virial += share + self.correction[1]
        if self.ewald is not None:
            found = self.ewald.evaluate(positions, near.ewald)
            forces += found.forces - found.forces.mean(axis=0)  # a mesh, and single precision, push the box about a little
            energies["coulomb"] += found.energy
            virial += found.energy  # the energy goes as one over length, so the virial is the energy
        return Evaluation(energies, forces, virial)

    def molecular_virial(self, positions: Array, found: Evaluation) -> float:
        """The virial of the forces between molecules at their centres of mass: forces inside them, rigid ones too, drop out."""
        return found.virial - float(((positions - self.centres(positions)[self.topology.molecule]) * found.forces).sum())

    def centres(self, values: Array) -> Array:
        """The mass-weighted means [molecules, 3] of values [atoms, 3]: centres of mass, or their velocities."""
        masses, molecule = self.topology.masses, self.topology.molecule
        weights = np.bincount(molecule, masses)
        return np.stack([np.bincount(molecule, masses * values[:, d]) for d in range(3)], axis=1) / weights[:, None]


def _listed(positions: Array, pairs: ListedPairs, forces: Array) -> tuple[float, float, float]:
    found = listed_pairs(positions, pairs.atoms, pairs.products, pairs.c12, pairs.c6, NO_CUTOFF, NO_CUTOFF, 0.0, 0.0, forces, 1.0)
    return float(found[0]), float(found[1]), float(found[2])


def ewald_plan(topology: Topology, cell: Array, positions: Array, force_error: float, skin: float) -> PMEPlan:
    """Particle-mesh Ewald in a cell [3, 3] whose force error is `force_error` of the forces between molecules at `positions`."""
    excluded = Exclusions(topology.excluded, np.zeros(len(topology.excluded)))
    return PMEPlan.for_accuracy(
        topology.charges, cell, force_error, positions, skin, coulomb_constant=COULOMB, exclusions=excluded
    )
