"""Angles, which come round after a turn. No compiler is loaded here."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def wrap(turn: Array) -> Array:
    """Angles brought into -pi to pi, by whole turns; elementwise, radians."""
    return np.asarray(turn - 2 * math.pi * np.rint(turn / (2 * math.pi)))
