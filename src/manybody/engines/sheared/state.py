"""The state of a sheared mixture: where every atom is, how it moves against the flow, and how far the cell is sheared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class MixtureState:
    """Atoms of mass 1 in a periodic cell, in reduced units.

    positions [atoms, 3]; velocities [atoms, 3], relative to the flow rate y e_x; species [atoms], whole numbers from 0;
    cell [3, 3], rows its vectors, lower triangular. heat and work: taken up since `init`. step: time steps since `init`.
    """

    positions: np.ndarray
    velocities: np.ndarray
    species: np.ndarray
    cell: np.ndarray
    key: Key
    step: int = 0
    heat: float = 0.0
    work: float = 0.0
