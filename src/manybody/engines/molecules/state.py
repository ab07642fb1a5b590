"""The state of a system of molecules: where every atom is and how it moves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from manybody.core.random import Key


@dataclass(frozen=True)
class MoleculeState:
    """Atoms in vacuum or in a periodic box, in nm and ps.

    positions, velocities: [atoms, 3], double precision; molecules are whole and are not wrapped into the box, so that
    displacements can be told over any time. box: [3], its edges, zeros in vacuum. heat: energy taken up from the heat bath,
    and from the barostat, since `init`, kJ/mol. step: time steps since `init`; with `key` it names the random numbers of the
    next step, so that a state determines its own future. width: of the barostat's moves, 0 where there is none.
    """

    positions: Tensor
    velocities: Tensor
    box: Tensor
    key: Key
    step: int = 0
    heat: float = 0.0
    width: float = 0.0
