"""The state of a particle system: where every atom is and how it moves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from manybody.core.random import Key


@dataclass(frozen=True)
class ParticleState:
    """Atoms of mass 1 in a periodic box, in reduced units.

    positions, velocities: [atoms, 3], double precision, positions wrapped into the box; box: [3], its edges.
    heat: taken up from the heat bath since `init`. step: time steps since `init`; with `key` it names the random
    numbers of the next step, so that a state determines its own future.
    """

    positions: Tensor
    velocities: Tensor
    box: Tensor
    key: Key
    step: int = 0
    heat: float = 0.0
