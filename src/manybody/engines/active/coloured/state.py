"""The state of active Ornstein-Uhlenbeck particles: where each disk is and what propels it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class ColouredState:
    """Disks of diameter 1 in a periodic square of edge `edge`, or, without repulsion, each in a trap of its own.

    positions: [particles, 2], double precision, not wrapped. propulsions: [particles, 2], the velocity p that a free disk
    has. driven: [2], the mean displacement since `init` by propulsion alone. step: time steps since `init`; with `key` it
    names the random numbers of the next step.
    """

    positions: np.ndarray
    propulsions: np.ndarray
    edge: float
    driven: np.ndarray
    key: Key
    step: int = 0
