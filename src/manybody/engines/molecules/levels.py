"""Multiple time steps: forces that change slowly act less often, and in impulses (r-RESPA).

A step of n short ones, dt = n d, is S(dt/2) [B(d/2) A(d) B(d/2)]^n S(dt/2): S is the kick of the slow forces, and in the
brackets is the usual step with the fast ones, heat bath and rigid bonds included. It is symmetric, so errors are of second
order in dt as long as no fast motion has a period near 2 dt. Source: M. Tuckerman, B. J. Berne and G. J. Martyna, J. Chem.
Phys. 97, 1990 (1992).

In a box with particle-mesh Ewald, slow is what is summed on the mesh; in vacuum, the pairs of atoms that no term binds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from manybody.engines.molecules.forces import Evaluation, ForceField
from manybody.engines.molecules.topology import Array
from manybody.numerics.nonbonded import ListedPairs
from manybody.numerics.pme import PMEPlan


@dataclass(frozen=True)
class Levels:
    """A force field in two parts: `fast`, and slow ones, on the `mesh` of a plan or as the force field `pairs`."""

    whole: ForceField
    fast: ForceField
    mesh: PMEPlan | None
    pairs: ForceField | None

    @classmethod
    def of(cls, field: ForceField) -> Levels:
        """The parts of a force field in vacuum, or in a box with particle-mesh Ewald."""
        if field.ewald is not None:
            return cls(field, replace(field, ewald=field.ewald.without_mesh()), field.ewald, None)
        topology = field.topology
        low, high = np.triu_indices(topology.atoms, 1)
        near = replace(topology, excluded=np.stack([low, high], axis=1))
        far = replace(topology, bonded={}, pairs_14=_no_pairs())
        return cls(field, replace(field, topology=near), None, replace(field, topology=far))

    def slow(self, positions: Array) -> Evaluation:
        """What changes slowly, at positions [atoms, 3]."""
        if self.pairs is not None:
            return self.pairs.evaluate(positions)
        assert self.mesh is not None
        found = self.mesh.mesh(positions)
        # the energy goes as one over length, so the virial is the energy; a mesh pushes the box about a little
        return Evaluation({"coulomb": found.energy}, found.forces - found.forces.mean(axis=0), found.energy)


def together(fast: Evaluation, slow: Evaluation) -> Evaluation:
    """Both parts."""
    return Evaluation(_summed(fast.energies, slow.energies), fast.forces + slow.forces, fast.virial + slow.virial)


def _summed(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def _no_pairs() -> ListedPairs:
    nothing = np.empty(0)
    return ListedPairs(np.empty((0, 2), np.int64), nothing, nothing, nothing)
