"""The state of a solute in its liquid: where every particle is and how it moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class SolvationState:
    """Particles of mass 1 in a periodic cube, in reduced units; the first is the solute.

    positions, velocities [1 + atoms, 3]. heat: taken up from the thermostat since `init`. step: time steps since `init`.
    """

    positions: np.ndarray
    velocities: np.ndarray
    key: Key
    step: int = 0
    heat: float = 0.0
