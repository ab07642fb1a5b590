"""Many-body potentials as formulas in a study: typed, torch-free. Electronvolts and angstroms."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from pydantic import Field, model_validator

from manybody.core.energies import EnergyModel
from manybody.core.errors import InputError
from manybody.core.spec import refuse
from manybody.core.units import Energy, Length
from manybody.engines.atoms.spec import ATOMIC_UNITS

if TYPE_CHECKING:
    from manybody.numerics.many_body_formula import ManyBodyKernel, ManyBodyPotential

PARTS = ("pair", "triple", "density", "embedding")
# A number and a product of units with powers of one digit: what the units library cannot be made to compute for ever.
_POWER = r"[A-Za-z]+(?:\^-?\d)?"
_QUANTITY = re.compile(rf"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{{1,3}})?(?: {_POWER}(?: ?[*/] ?{_POWER})*)?")


class FormulaModel(EnergyModel, ABC):
    """Equal atoms of one element, by a many-body potential that is made of formulas."""

    provider: ClassVar[str] = "manybody.engines.atoms.energies.many_body:provider"

    element: str

    @property
    def known_elements(self) -> tuple[str, ...]:
        """The one that it is for."""
        return (self.element,)

    @property
    def roundoff(self) -> float:
        """Double precision."""
        return 2.3e-16

    @abstractmethod
    def bound(self) -> ManyBodyKernel:
        """The potential with its parameters, not compiled yet. Raises `InputError` where formulas do not suit them."""

    @model_validator(mode="after")
    def _is_sound(self) -> FormulaModel:
        from ase.data import chemical_symbols

        if self.element not in chemical_symbols[1:]:
            refuse("element", "the symbol of an element", f"`{self.element}`", "Write for example `Si`.")
        try:
            self.bound()
        except InputError as error:
            _refuse_part(error)
        return self


class ManyBodyModel(FormulaModel):
    """Pairs, triples and embedded atoms as they are written down, for atoms of one element.

    E = sum_(pairs) pair(r) + sum_i sum_(j < k) triple(r, s, c) + sum_i embedding(rho_i), rho_i = sum_j density(r): r and s are
    the distances of two neighbours of an atom, c is the cosine of the angle between them. Formulas are arithmetic of these,
    r2 = r^2, parameters and exp, log, sqrt, sin, cos, tanh, erf, erfc.

    Parameters with units are checked: formulas but the density must be energies then, and a bare number has no dimension.
    Where none has a unit they are in electronvolts and angstroms.
    """

    summary: ClassVar[str] = "pairs, triples and embedded atoms of one element, as formulas, by a compiled kernel"

    name: Literal["many-body"] = "many-body"
    element: str = Field(description="symbol of the element")
    pair: str = Field("0", description="energy of a pair, such as `epsilon*(sigma/r)**12`; r2 is r squared")
    triple: str = Field("0", description="energy of two neighbours of an atom at r and s, the cosine of their angle c")
    density: str = Field("0", description="what a neighbour at r adds to the density rho of an atom")
    embedding: str = Field("0", description="energy of an atom in the density rho, such as `-A*sqrt(rho)`")
    parameters: dict[str, float] = Field({}, description="numbers by name, or texts with a unit such as `2.1683 eV`")
    cutoff: Length = Field(gt=0, le=20, description="where pairs, triples and densities end")
    switch: Length | None = Field(None, gt=0, description="from where they fade to zero; none: they end by themselves")
    density_cutoff: Length | None = Field(None, gt=0, le=20, description="where densities end, if not at the cutoff")

    @model_validator(mode="before")
    @classmethod
    def _in_atomic_units(cls, given: Any) -> Any:
        """Parameters as numbers, where one has a unit."""
        parameters = given.get("parameters") if isinstance(given, dict) else None
        if not isinstance(parameters, dict) or not any(isinstance(value, str) for value in parameters.values()):
            return given
        from manybody.numerics.dimensions import many_body_in_reduced_units

        for name, value in parameters.items():
            if isinstance(value, bool) or not isinstance(value, str | float | int) or not _is_quantity(value):
                refuse(
                    "parameters", "a number, or a number and a unit", f"`{value}` for {name}", "Write for example `2.1683 eV`."
                )
        quantities = {name: _number(value) for name, value in parameters.items()}
        try:
            values = many_body_in_reduced_units(_potential(given, tuple(parameters)), quantities, ATOMIC_UNITS)
        except InputError as error:
            _refuse_part(error)
        return given | {"parameters": values}

    def bound(self) -> ManyBodyKernel:
        """The formulas as they are given."""
        potential = _potential({part: getattr(self, part) for part in PARTS}, tuple(self.parameters))
        return potential.bind(self.parameters, self.cutoff, self.switch, self.density_cutoff)


class StillingerWeberModel(FormulaModel):
    """Stillinger and Weber's potential for tetrahedral bonds, up to a sigma; without a change that of silicon.

    A epsilon [B (sigma/r)^p - (sigma/r)^q] exp[sigma/(r - a sigma)] for a pair, and for two neighbours of an atom
    strength epsilon (c + 1/3)^2 exp[gamma sigma/(r - a sigma) + gamma sigma/(s - a sigma)]; `strength` is their lambda.
    Source: F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985).
    """

    summary: ClassVar[str] = "tetrahedral bonds by pairs and angles, of one element (Stillinger and Weber): silicon"

    name: Literal["stillinger-weber"] = "stillinger-weber"
    element: str = Field("Si", description="symbol of the element")
    epsilon: Energy = Field(2.1683, gt=0, description="depth of the pair energy")
    sigma: Length = Field(2.0951, gt=0, description="the minimum of the pair energy over 2^(1/6)")
    a: float = Field(1.8, gt=1, le=5, description="where everything ends, in sigma")
    strength: float = Field(21.0, ge=0, description="of angles: the paper's lambda")
    gamma: float = Field(1.2, gt=0, description="how angles fade")
    A: float = Field(7.049556277, gt=0, description="prefactor of the pair energy")
    B: float = Field(0.6022245584, gt=0, description="repulsion over attraction")
    p: float = Field(4.0, gt=0, description="power of the repulsion")
    q: float = Field(0.0, ge=0, description="power of the attraction")

    def bound(self) -> ManyBodyKernel:
        """The library's formula."""
        from manybody.numerics.many_body_formula import STILLINGER_WEBER

        return STILLINGER_WEBER.bind({name: getattr(self, name) for name in STILLINGER_WEBER.parameters}, self.a * self.sigma)


def _potential(given: dict[str, Any], parameters: tuple[str, ...]) -> ManyBodyPotential:
    """The formulas of a document; what is no text is left to the type of its field."""
    from manybody.numerics.many_body_formula import ManyBodyPotential  # loads the compiler: only where a formula is asked for

    texts = {part: given[part] for part in PARTS if isinstance(given.get(part), str)}
    return ManyBodyPotential("many-body", **texts, parameters=parameters)


def _refuse_part(error: InputError) -> NoReturn:
    """Raise, inside a validator, what is wrong with a formula, for the field that holds it."""
    problem = error.problems[0]
    place = problem.where.partition(", ")[2]  # such as `pair, column 3`, or a parameter
    named = place.partition(",")[0]
    told = f"{problem.expected} ({place})" if place else problem.expected
    refuse(named if named in PARTS else "parameters", told, problem.came, problem.remedy)


def _is_quantity(value: str | float) -> bool:
    return not isinstance(value, str) or _QUANTITY.fullmatch(value.strip()) is not None


def _number(value: str | float) -> str | float:
    """A text without a unit as a number: YAML 1.1 reads 1e-3 as text."""
    return value if isinstance(value, str) and re.search(r"[A-Za-z]{2}|[A-Za-z]$", value.strip()) else float(value)
