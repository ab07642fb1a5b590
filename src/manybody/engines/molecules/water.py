"""Rigid three-site models of water, and boxes of them to start from.

Sources: SPC/E, H. J. C. Berendsen, J. R. Grigera and T. P. Straatsma, J. Phys. Chem. 91, 6269 (1987); TIP3P, W. L.
Jorgensen et al., J. Chem. Phys. 79, 926 (1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key
from manybody.engines.molecules.spec import HYDROGEN_MASS, OXYGEN_MASS, WaterModel
from manybody.engines.molecules.topology import Array, Topology
from manybody.numerics.constraints import Constraints
from manybody.numerics.nonbonded import ListedPairs, lorentz_berthelot


@dataclass(frozen=True)
class Water:
    """A model: O-H distance, nm, H-O-H angle, degrees, charge of H, e, and the Lennard-Jones of O, nm and kJ/mol."""

    bond: float
    angle: float
    charge: float
    sigma: float
    epsilon: float

    @property
    def base(self) -> float:
        """Distance between the hydrogens, nm."""
        return 2 * self.bond * math.sin(math.radians(self.angle) / 2)


MODELS: dict[WaterModel, Water] = {
    "spce": Water(bond=0.1, angle=109.47, charge=0.4238, sigma=0.3166, epsilon=0.650),
    "tip3p": Water(bond=0.09572, angle=104.52, charge=0.417, sigma=0.315061, epsilon=0.1521 * 4.184),
}


def water_topology(model: WaterModel, molecules: int) -> Topology:
    """That many rigid molecules, each O, H, H."""
    water = MODELS[model]
    atoms = np.arange(3 * molecules).reshape(-1, 3)
    masses = np.tile([OXYGEN_MASS, HYDROGEN_MASS, HYDROGEN_MASS], molecules)
    c12, c6 = lorentz_berthelot(np.array([water.sigma, 0.0]), np.array([water.epsilon, 0.0]))
    nothing = np.empty(0)
    shape = np.full(molecules, water.bond), np.full(molecules, water.base)
    return Topology(
        names=("O", "H1", "H2") * molecules,
        residues=("HOH",) * (3 * molecules),
        residue=np.repeat(np.arange(molecules), 3),
        molecule=np.repeat(np.arange(molecules), 3),
        bonds=atoms[:, [[0, 1], [0, 2]]].reshape(-1, 2),
        numbers=np.tile([8, 1, 1], molecules),
        masses=masses,
        charges=np.tile([-2 * water.charge, water.charge, water.charge], molecules),
        species=np.tile([0, 1, 1], molecules),
        c12=c12,
        c6=c6,
        bonded={},
        excluded=atoms[:, [[0, 1], [0, 2], [1, 2]]].reshape(-1, 2),
        pairs_14=ListedPairs(np.empty((0, 2), np.int64), nothing, nothing, nothing),
        constraints=Constraints(masses, atoms, *shape, np.empty((0, 2), np.int64), nothing),
    )


def water_lattice(model: WaterModel, molecules: int, edge: float, key: Key) -> Array:
    """Molecules on a simple cubic lattice (with vacancies where it does not fit), turned at random: [atoms, 3], nm."""
    generator = key.generator()
    cells = math.ceil(molecules ** (1 / 3) - 1e-9)
    sites = (np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) + 0.5) * (edge / cells)
    sites = sites[np.sort(generator.permutation(len(sites))[:molecules])]
    bisector = generator.standard_normal((molecules, 3))
    across = np.cross(bisector, generator.standard_normal((molecules, 3)))
    bisector /= np.linalg.norm(bisector, axis=1, keepdims=True)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    water = MODELS[model]
    along, half = water.bond * math.cos(math.radians(water.angle) / 2) * bisector, 0.5 * water.base * across
    return np.stack([sites, sites + along + half, sites + along - half], axis=1).reshape(-1, 3)
