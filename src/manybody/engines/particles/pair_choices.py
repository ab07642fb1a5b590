"""The pair potentials that a study file can ask for: typed, torch-free. By name, as a formula, or from a table.

Formulas are those of `manybody.numerics.potentials`, where their sources stand.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from manybody.core.energies import digest_of, identified, verified
from manybody.core.errors import InputError
from manybody.core.spec import NamedSpec, refuse
from manybody.core.units import Dimension, Energy, Length
from manybody.numerics.expressions import in_floats, parsed, refuse_names
from manybody.numerics.tables import Pieces, Table, read_table

if TYPE_CHECKING:
    from manybody.numerics.pairs import PairPotential

InverseLength = Annotated[float, Dimension("inverse length", "1/nm", length=-1)]
EnergyLength = Annotated[float, Dimension("energy times length", "kJ nm/mol", energy=1, length=1)]
Dispersion = Annotated[float, Dimension("energy times length^6", "kJ nm^6/mol", energy=1, length=6)]

FAR, FASTER = 1e4, 1e-3  # at so many cutoffs, |u| r^3 must be below this share of its largest before: r^-4 gives 1e-4


class PairChoice(NamedSpec, ABC):
    """A pair potential by name, with its parameters."""

    @abstractmethod
    def energy(self, r: float) -> float:
        """u(r); infinite or not a number where it has no finite value."""

    @property
    def end(self) -> float | None:
        """Where it is over by itself, or by its table; None where it never is."""
        return None

    @property
    def is_at_hand(self) -> bool:
        """Whether this machine has all that its energy takes."""
        return True

    def falls_fast(self, cutoff: float) -> bool:
        """Whether its tail is finite: |u| r^3 vanishes far away."""
        near, far = (abs(self.energy(r)) * r**3 for r in (cutoff, FAR * cutoff))
        return far <= FASTER * near or far == 0

    def integral_beyond(self, cutoff: float) -> float:
        """int_cutoff^inf u r^2 dr, by quadrature over x = cutoff/r."""
        from scipy.integrate import quad

        value, _ = quad(lambda x: self.energy(cutoff / x) * cutoff**3 / x**4, 0, 1, epsabs=0, epsrel=1e-10, limit=200)
        return float(value)


class Formula(PairChoice, ABC):
    """A potential that is a text: `expression` over r, r2 and `values`."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The formula."""

    @property
    @abstractmethod
    def values(self) -> dict[str, float]:
        """Its parameters by name, in the order of the kernel's."""

    def energy(self, r: float) -> float:
        """u(r)."""
        names = {"r": r, "r2": r * r} | self.values
        return in_floats(parsed(self.text, names, f"pair potential `{self.name}`"), names)


class FormulaPotential(Formula):
    """A potential as it is written down: arithmetic of r, r2 = r^2, parameters and exp, log, sqrt, sin, cos, tanh, erf, erfc."""

    summary: ClassVar[str] = "a formula in r"

    name: Literal["formula"] = "formula"
    expression: str = Field(description="u(r), such as `epsilon*(sigma/r)**12`; r2 is r squared")
    parameters: dict[str, float] = Field({}, description="numbers by name, in reduced units")

    @property
    def text(self) -> str:
        """As it is given."""
        return self.expression

    @property
    def values(self) -> dict[str, float]:
        """As they are given, by name in order: the same formula is the same kernel."""
        return dict(sorted(self.parameters.items()))

    @model_validator(mode="after")
    def _is_arithmetic(self) -> FormulaPotential:
        try:
            refuse_names(self.parameters, "parameters")
            parsed(self.expression, ("r", "r2", *self.parameters), "expression")
        except InputError as error:
            problem = error.problems[0]
            refuse(problem.where, f"{problem.expected} ({problem.where})", problem.came, problem.remedy)
        return self


class LibraryPotential(Formula, ABC):
    """A potential of `manybody.numerics.potentials`; the fields are its parameters."""

    @property
    def text(self) -> str:
        """Of the library."""
        return _library()[self.name].expression

    @property
    def values(self) -> dict[str, float]:
        """The fields."""
        return {name: getattr(self, name) for name in _library()[self.name].parameters}

    @property
    def end(self) -> float | None:
        """Where energy and force reach zero together, if they do."""
        from manybody.numerics.potentials import ends_at

        return ends_at(_library()[self.name], list(self.values.values()))


@cache
def _library() -> dict[str, PairPotential]:
    from manybody.numerics.potentials import LIBRARY  # loads the compiler: only where a formula of the library is asked for

    return LIBRARY


class LennardJonesPotential(LibraryPotential):
    """4 epsilon ((sigma/r)^12 - (sigma/r)^6)."""

    summary: ClassVar[str] = "4 epsilon ((sigma/r)^12 - (sigma/r)^6)"

    name: Literal["lennard-jones"] = "lennard-jones"
    epsilon: Energy = Field(1.0, description="depth of the well")
    sigma: Length = Field(1.0, gt=0, description="where the energy is 0")


class WeeksChandlerAndersenPotential(LibraryPotential):
    """Lennard-Jones lifted by epsilon, up to its minimum: repulsion alone."""

    summary: ClassVar[str] = "the repulsive part of Lennard-Jones, up to 2^(1/6) sigma"

    name: Literal["weeks-chandler-andersen"] = "weeks-chandler-andersen"
    epsilon: Energy = Field(1.0, gt=0, description="the energy at sigma")
    sigma: Length = Field(1.0, gt=0, description="diameter")


class MorsePotential(LibraryPotential):
    """depth (1 - exp(-a (r - place)))^2 - depth."""

    summary: ClassVar[str] = "depth (1 - exp(-a (r - place)))^2 - depth"

    name: Literal["morse"] = "morse"
    depth: Energy = Field(gt=0, description="depth of the well")
    a: InverseLength = Field(gt=0, description="one over the width of the well")
    place: Length = Field(gt=0, description="where the well is deepest")


class BuckinghamPotential(LibraryPotential):
    """A exp(-r/rho) - C/r^6."""

    summary: ClassVar[str] = "A exp(-r/rho) - C/r^6; it falls to minus infinity at r = 0"

    name: Literal["buckingham"] = "buckingham"
    A: Energy = Field(gt=0, description="strength of the repulsion")
    rho: Length = Field(gt=0, description="range of the repulsion")
    C: Dispersion = Field(ge=0, description="strength of the dispersion")


class YukawaPotential(LibraryPotential):
    """strength exp(-kappa r)/r."""

    summary: ClassVar[str] = "strength exp(-kappa r)/r"

    name: Literal["yukawa"] = "yukawa"
    strength: EnergyLength = Field(description="energy times length, as of Coulomb's law")
    kappa: InverseLength = Field(gt=0, description="one over the screening length")


class SoftCorePotential(LibraryPotential):
    """Lennard-Jones at coupling 1, nothing at 0, finite at r = 0 between."""

    summary: ClassVar[str] = "Lennard-Jones switched on by a coupling, finite at r = 0"

    name: Literal["soft-core"] = "soft-core"
    epsilon: Energy = Field(1.0, description="depth of the well at coupling 1")
    sigma: Length = Field(1.0, gt=0, description="where the energy is 0 at coupling 1")
    alpha: float = Field(0.5, gt=0, description="how soft the core is")
    coupling: float = Field(ge=0, le=1, description="0: nothing; 1: Lennard-Jones")


class SoftRepulsionPotential(LibraryPotential):
    """a/2 (1 - r)^2 up to r = 1."""

    summary: ClassVar[str] = "a/2 (1 - r)^2 up to r = 1, as in dissipative particle dynamics"

    name: Literal["soft-repulsion"] = "soft-repulsion"
    a: Energy = Field(gt=0, description="the largest force, at r = 0")


class TablePotential(PairChoice):
    """A potential from a file: columns r, u and perhaps -du/dr, or a table of LAMMPS. In reduced units.

    `content` is the SHA-256 of the file, found when the study is read: a node whose file differs refuses the task. It has no
    energy below its first r, and is over at its last.
    """

    summary: ClassVar[str] = "a table from a file: columns r, u and perhaps f, or one of LAMMPS"

    name: Literal["table"] = "table"
    file: str = Field(description="a text file of columns r, u and perhaps f = -du/dr; or a table of LAMMPS")
    section: str = Field("", description="the keyword of the table in a LAMMPS file; needed where there are several")
    content: str = Field("", description="SHA-256 of the file; leave it out, and it is found")

    @property
    def end(self) -> float | None:
        """The last r of the table."""
        return float(self.table.r[-1])

    @property
    def is_at_hand(self) -> bool:
        """Whether the file is there, as it was."""
        path = Path(self.file)
        return path.is_file() and digest_of(path) == self.content

    @property
    def table(self) -> Table:
        """What the file says. Raises `InputError` where it is another, or no table."""
        return _read(self.file, self.content, self.section)

    def energy(self, r: float) -> float:
        """u(r) of the spline; not a number outside of the table."""
        table = self.table
        return float(table.at(np.array(r))[0]) if table.r[0] <= r <= table.r[-1] else math.nan

    def pieces(self, cutoff: float) -> Pieces:
        """The table up to the cutoff, as kernels look it up."""
        return Pieces.of(self.table, cutoff)

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, given: Any) -> Any:
        path = identified(cls, given, "file")
        return given if path is None else given | {"content": digest_of(path)}

    @model_validator(mode="after")
    def _is_read(self) -> TablePotential:
        if self.is_at_hand:
            try:
                _ = self.table
            except InputError as error:
                problem = error.problems[0]
                refuse("file", f"{problem.expected} ({problem.where})", problem.came, problem.remedy)
        return self


@lru_cache(maxsize=8)
def _read(file: str, content: str, section: str) -> Table:
    return read_table(verified(Path(file), content).read_text(encoding="utf-8", errors="replace"), file, section)
