"""The state of a flock: where each particle is and where it heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class FlockState:
    """Particles in a periodic square of edge `edge`.

    positions: [particles, 2], double precision, not wrapped. angles: [particles], radians. step: steps since `init`; with
    `key` it names the random numbers of the next step.
    """

    positions: np.ndarray
    angles: np.ndarray
    edge: float
    key: Key
    step: int = 0
