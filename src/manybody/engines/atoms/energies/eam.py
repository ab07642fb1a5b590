"""Embedded atoms as a force provider: neighbour rows that are kept while they hold."""

from __future__ import annotations

import math

import numpy as np

from manybody.core.energies import EnergyError, Evaluated, verified
from manybody.engines.atoms.eam_file import EamFile, read_eam
from manybody.engines.atoms.energies.spec import EmbeddedAtomModel
from manybody.numerics.many_body import EmbeddedAtoms, KeptRows, evaluate, polynomials, rows_within


def tables_of(file: EamFile) -> EmbeddedAtoms:
    """The splines of a file: of F and rho through their samples, of phi through those of r phi over r, without r = 0."""
    r = file.spacing * np.arange(1, file.pair.shape[-1])
    return EmbeddedAtoms(
        density=polynomials(file.density, file.spacing),
        pair=polynomials(file.pair[..., 1:] / r, file.spacing, first=file.spacing),
        embedding=polynomials(file.embedding, file.step),
        spacing=file.spacing,
        step=file.step,
        cutoff=file.cutoff,
    )


class EmbeddedAtomProvider:
    """`core.energies.ForceProvider` of a potential file."""

    def __init__(self, file: EamFile) -> None:
        from ase.data import atomic_numbers

        self.tables = tables_of(file)
        self.species = np.full(len(atomic_numbers), -1, dtype=np.int32)
        for index, element in enumerate(file.elements):
            self.species[atomic_numbers[element]] = index
        self.rows = KeptRows(rows_within, self.tables.cutoff)

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        """Energy, forces and stress. Raises `EnergyError` where a position is no number or atoms overlap."""
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(bad):
            raise EnergyError("a position is not finite", int(bad[0]))
        species = self.species[numbers]
        if (species < 0).any():
            raise EnergyError("the embedded-atom potential does not have its element", int(np.flatnonzero(species < 0)[0]))
        energy, forces, strained, atom = evaluate(self.tables, positions, species, self.rows(positions, cell, pbc))
        if atom >= 0:
            raise EnergyError(f"its density is beyond the potential's table, {self.tables.densest:g}: atoms overlap", atom)
        volume = abs(float(np.linalg.det(cell)))
        return Evaluated(energy, forces, strained / volume if pbc.all() and not math.isclose(volume, 0.0) else None)

    def forget(self) -> None:
        """Drop the neighbour rows."""
        self.rows.forget()


def provider(model: EmbeddedAtomModel) -> EmbeddedAtomProvider:
    """The potential in the model's file. Raises `InputError` where it is not the one that was asked for."""
    return EmbeddedAtomProvider(read_eam(verified(model.path, model.content)))
