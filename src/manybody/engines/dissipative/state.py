"""The state of dissipative particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class DissipativeState:
    """Particles of mass 1 and range 1 in a periodic box of edges `box` [3].

    positions [particles, 3], not wrapped, so that displacements and chains are differences; velocities [particles, 3];
    species [particles], whole numbers from 0. heat: taken up since `init`. step: time steps since `init`; with `key` it names
    the noise of the next step, so that a state determines its own future.
    """

    positions: np.ndarray
    velocities: np.ndarray
    species: np.ndarray
    box: np.ndarray
    key: Key
    step: int = 0
    heat: float = 0.0
