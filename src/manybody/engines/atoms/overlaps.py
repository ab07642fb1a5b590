"""Atoms that lie on top of each other, found before any model is asked about them."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from manybody.core.errors import TaskError
from manybody.numerics.many_body import rows_within

CLOSEST = 0.5  # of the sum of two covalent radii: the shortest bonds of molecules are above 0.9


def overlaps(positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[int, int, float] | None:
    """The pair of atoms that overlap most, and their distance, angstroms; None where none do. Images of an atom count too."""
    radii = np.where(np.isfinite(covalent_radii), covalent_radii, 0.0)[numbers]
    pairs, shifts = rows_within(positions, cell, pbc, 2 * CLOSEST * float(radii.max()) + 0.01, skin=0.0).pairs()
    if not pairs.shape[1]:
        return None
    distance = np.linalg.norm(positions[pairs[1]] + shifts - positions[pairs[0]], axis=1)
    share = distance / (radii[pairs[0]] + radii[pairs[1]])
    worst = int(share.argmin())
    return (int(pairs[0, worst]), int(pairs[1, worst]), float(distance[worst])) if share[worst] < CLOSEST else None


def refuse_overlaps(positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
    """Raise `TaskError` naming two atoms that overlap, or one without a finite position."""
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise TaskError(f"Step 0: atom {bad[0]} has no finite position. Mend the structure.")
    found = overlaps(positions, numbers, cell, pbc)
    if found is not None:
        first, second, distance = found
        names = f"{first} ({chemical_symbols[numbers[first]]}) and {second} ({chemical_symbols[numbers[second]]})"
        remedy = "Remove one of them, enlarge the cell, or relax the structure."
        raise TaskError(f"Step 0: atoms {names} are {distance:.3g} angstroms apart and overlap. {remedy}")
