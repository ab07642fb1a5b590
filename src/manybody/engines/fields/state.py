"""The state of a field on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FieldState:
    """Cell averages `field` [rows, columns] after `step` time steps.

    A plain array, because nothing here needs torch, and a worker that advances fields need not load it.
    """

    field: np.ndarray
    step: int = 0
