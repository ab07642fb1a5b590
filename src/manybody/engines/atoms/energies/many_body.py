"""Many-body formulas as a force provider: neighbour rows that are kept while they hold."""

from __future__ import annotations

import math

import numpy as np

from manybody.core.energies import EnergyError, Evaluated
from manybody.engines.atoms.energies.formulas import FormulaModel
from manybody.numerics.many_body import KeptRows, whole_rows
from manybody.numerics.many_body_formula import ManyBodyKernel


class ManyBodyProvider:
    """`core.energies.ForceProvider` of a potential for one element, by its atomic number."""

    def __init__(self, kernel: ManyBodyKernel, number: int) -> None:
        self.kernel, self.number = kernel, number
        self.rows = KeptRows(whole_rows, kernel.reach)

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        """Energy, forces and stress. Raises `EnergyError` where a position is no number or atoms overlap."""
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(bad):
            raise EnergyError("a position is not finite", int(bad[0]))
        other = np.flatnonzero(numbers != self.number)
        if len(other):
            raise EnergyError("the potential is for another element", int(other[0]))
        energy, forces, strained, atom = self.kernel.evaluate(positions, self.rows(positions, cell, pbc))
        if atom >= 0:
            raise EnergyError("its energy is not finite: atoms overlap, or a formula has no value here", atom)
        volume = abs(float(np.linalg.det(cell)))
        return Evaluated(energy, forces, strained / volume if pbc.all() and not math.isclose(volume, 0.0) else None)

    def forget(self) -> None:
        """Drop the neighbour rows."""
        self.rows.forget()


def provider(model: FormulaModel) -> ManyBodyProvider:
    """The potential of a model."""
    from ase.data import atomic_numbers

    return ManyBodyProvider(model.bound(), atomic_numbers[model.element])
