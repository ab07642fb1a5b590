"""The state of active particles: where each disk is and where it heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class ActiveState:
    """Disks of diameter 1 in a periodic square of edge `edge`.

    positions: [particles, 2], double precision, not wrapped, so that displacements are differences. angles: [particles],
    radians. driven: [2], the mean displacement since `init` by propulsion and noise alone. step: time steps since `init`;
    with `key` it names the random numbers of the next step, so that a state determines its own future.
    """

    positions: np.ndarray
    angles: np.ndarray
    edge: float
    driven: np.ndarray
    key: Key
    step: int = 0
