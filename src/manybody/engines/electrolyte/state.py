"""The state of a driven electrolyte: where each ion is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key


@dataclass(frozen=True)
class IonState:
    """Ions in a periodic cube of edge `edge`.

    positions: [ions, 3], double precision, not wrapped, so that displacements are differences. charges: [ions], +1 or -1.
    driven: [3], the mean displacement since `init` by noise alone. step: time steps since `init`; with `key` it names the
    random numbers of the next step, so that a state determines its own future.
    """

    positions: np.ndarray
    charges: np.ndarray
    edge: float
    driven: np.ndarray
    key: Key
    step: int = 0
