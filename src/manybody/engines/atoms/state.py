"""The state of atoms: where each is and how it moves, in which cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class AtomsState:
    """Atoms in angstroms and units of angstrom sqrt(u / eV).

    positions, velocities: [atoms, 3], not wrapped into the cell, so that displacements can be told over any time. cell:
    [3, 3], rows are lattice vectors. order: [atoms], which of the system's atoms each is. heat: taken up from the heat bath
    since `init`, eV. step: time steps since `init`; with `key` it names the random numbers of the next step, so that a state
    determines its own future.
    """

    positions: np.ndarray
    velocities: np.ndarray
    cell: np.ndarray
    order: np.ndarray
    key: Key
    step: int = 0
    heat: float = 0.0
