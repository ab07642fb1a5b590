"""The sum of two force providers."""

from __future__ import annotations

import numpy as np

from manybody.core.energies import Evaluated, ForceProvider
from manybody.engines.atoms.energies.spec import SumModel


class SumProvider:
    """E = E_base + E_correction, and so the forces; a stress where both have one."""

    def __init__(self, base: ForceProvider, correction: ForceProvider) -> None:
        self.terms = base, correction

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        """Energy, forces and stress."""
        first, second = (term(positions, numbers, cell, pbc) for term in self.terms)
        stress = None if first.stress is None or second.stress is None else first.stress + second.stress
        return Evaluated(first.energy + second.energy, first.forces + second.forces, stress)

    def forget(self) -> None:
        """Have both forget."""
        for term in self.terms:
            term.forget()


def provider(model: SumModel) -> SumProvider:
    """Both models, loaded."""
    return SumProvider(model.base.load(), model.correction.load())
