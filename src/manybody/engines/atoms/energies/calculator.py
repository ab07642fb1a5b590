"""Calculators of ASE as force providers, and force providers as calculators of ASE."""

from __future__ import annotations

import importlib
import os
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, FileIOCalculator, PropertyNotImplementedError, all_changes

from manybody.core.energies import EnergyError, Evaluated, ForceProvider
from manybody.core.errors import InputError, Problem
from manybody.engines.atoms.energies.spec import CalculatorModel

# Calculators that compute in this process and run no commands of the study's author.
TRUSTED = (
    "ase.calculators.eam.EAM",
    "ase.calculators.emt.EMT",
    "ase.calculators.lj.LennardJones",
    "ase.calculators.morse.MorsePotential",
    "ase.calculators.tersoff.Tersoff",
    "chgnet.model.dynamics.CHGNetCalculator",
)
# What calculators raise when they cannot compute, from missing elements to their own mistakes.
MISHAPS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


class CalculatorProvider:
    """`core.energies.ForceProvider` of an ASE calculator: one `Atoms` object that follows what is asked."""

    def __init__(self, calculator: Any, name: str) -> None:
        self.calculator, self.name = calculator, name
        self._atoms: Atoms | None = None

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        """Energy, forces, and the stress where the calculator has it. Raises `EnergyError` with the calculator's own words."""
        atoms = self._follow(positions, numbers, cell, pbc)
        try:
            energy = float(atoms.get_potential_energy())
            forces = np.array(atoms.get_forces(), dtype=np.float64)
            return Evaluated(energy, forces, self._stress(atoms))
        except MISHAPS as error:
            raise EnergyError(f"{self.name} raises {type(error).__name__}: {error}") from error

    def forget(self) -> None:
        """Drop the atoms, and have the calculator drop its results and lists."""
        self._atoms = None
        if isinstance(self.calculator, Calculator):
            self.calculator.reset()

    def _follow(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Atoms:
        if self._atoms is None or not np.array_equal(self._atoms.numbers, numbers):
            self._atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc, calculator=self.calculator)
        self._atoms.positions[:] = positions
        self._atoms.cell[:] = cell
        self._atoms.pbc[:] = pbc
        return self._atoms

    def _stress(self, atoms: Atoms) -> np.ndarray | None:
        if not atoms.pbc.all():
            return None
        try:
            return np.array(atoms.get_stress(voigt=False), dtype=np.float64)
        except PropertyNotImplementedError:
            return None


class DrivenCalculator(Calculator):
    """A force provider as an ASE calculator, for ASE's optimisers and analyses."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, provider: ForceProvider) -> None:
        super().__init__()
        self.provider = provider

    def calculate(self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        """Energy, forces, and the stress (Voigt: xx, yy, zz, yz, xz, xy) where there is one."""
        super().calculate(atoms, properties, system_changes)
        found = self.provider(self.atoms.positions, self.atoms.numbers, np.array(self.atoms.cell), np.array(self.atoms.pbc))
        self.results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
        if found.stress is not None:
            self.results["stress"] = found.stress.flat[[0, 4, 8, 5, 2, 1]]


def trusted(path: str) -> bool:
    """Whether this machine runs the calculator of an import path."""
    allowed = [name.strip() for name in os.environ.get("MANYBODY_CALCULATORS", "").split(",") if name.strip()]
    return path in TRUSTED or any(path == name or path.startswith(f"{name}.") for name in allowed)


def provider(model: CalculatorModel) -> CalculatorProvider:
    """The calculator, made. Raises `InputError` where it cannot be, or where this machine does not trust it."""
    module, _, name = model.path.rpartition(".")
    where = "calculator"
    if not trusted(model.path):
        remedy = f"Set MANYBODY_CALCULATORS={module.split('.')[0]} on the machines that may run it."
        raise InputError(Problem(where, f"one that this machine runs: {', '.join(TRUSTED)}", f"`{model.path}`", remedy))
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        remedy = f"Install the package `{module.split('.')[0]}` on this machine, or correct the path."
        raise InputError(Problem(where, "a class that can be imported", f"`{model.path}` ({error})", remedy)) from error
    if not isinstance(kind, type) or not issubclass(kind, Calculator) or issubclass(kind, FileIOCalculator):
        came = f"`{model.path}`"
        raise InputError(Problem(where, "an ASE calculator that runs no other program", came, "Choose another one."))
    try:
        return CalculatorProvider(kind(**model.arguments), model.path)
    except MISHAPS as error:
        came = f"{type(error).__name__}: {error}"
        raise InputError(Problem(f"{where} {model.path}", "arguments that it takes", came, "Mend `arguments`.")) from error
