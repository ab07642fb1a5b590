"""Formulas with units: parameters given as text, such as ``0.996 kJ/mol``, checked to make an energy and turned into numbers.

    values = in_reduced_units(LENNARD_JONES, {"epsilon": "0.996 kJ/mol", "sigma": "3.405 angstrom"}, units)
    kernel = LENNARD_JONES.bind(values)

A dimension is three powers: of length, energy and mass. Time is length mass^(1/2) energy^(-1/2), and a temperature counts as
the energy k_B T, as everywhere in reduced units. A formula is walked once with quantities instead of numbers.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from manybody.core.errors import InputError, Problem
from manybody.core.units import Dimension, UnitError, UnitSystem, read_quantity, registry
from manybody.numerics import expressions
from manybody.numerics.bonded_formulas import BondedPotential
from manybody.numerics.many_body_formula import ManyBodyPotential
from manybody.numerics.pairs import PairPotential

if TYPE_CHECKING:
    import pint

Powers = tuple[Fraction, Fraction, Fraction]
NONE: Powers = (Fraction(0), Fraction(0), Fraction(0))
LENGTH: Powers = (Fraction(1), Fraction(0), Fraction(0))
ENERGY: Powers = (Fraction(0), Fraction(1), Fraction(0))
# Powers of length, energy and mass in pint's base dimensions; molar amounts are single molecules.
_BASE: dict[str, Powers] = {
    "[length]": LENGTH,
    "[mass]": (Fraction(0), Fraction(0), Fraction(1)),
    "[time]": (Fraction(1), Fraction(-1, 2), Fraction(1, 2)),
    "[temperature]": ENERGY,
    "[substance]": NONE,
}
_SINGLE = {"[substance]": "avogadro_constant", "[temperature]": "boltzmann_constant"}  # what makes of them what they count as


def in_reduced_units(
    potential: PairPotential | BondedPotential, quantities: Mapping[str, str | float], units: UnitSystem
) -> dict[str, float]:
    """Parameters of `potential` as numbers in reduced units, where the formula with them is an energy.

    quantities: for each parameter a text with a unit, or a number where it has no dimension, as angles have none. Raises
    `InputError` where a text is no quantity, where terms of different dimensions are added, where a function is taken of
    something with a dimension, and where the whole is no energy.
    """
    where, tree, coordinates = _taken_apart(potential)
    names, values = _parameters(potential.parameters, quantities, units, where)
    _refuse_unless_energy(_measured(tree, names | coordinates, quantities, where), quantities, where)
    return values


def many_body_in_reduced_units(
    potential: ManyBodyPotential, quantities: Mapping[str, str | float], units: UnitSystem
) -> dict[str, float]:
    """The same for a many-body potential: each of its formulas must be an energy, but a density may be anything."""
    where = f"many-body potential `{potential.name}`"
    names, values = _parameters(potential.parameters, quantities, units, where)
    names |= {"r": Measured(LENGTH), "r2": Measured(LENGTH) ** Measured(NONE, 2.0), "s": Measured(LENGTH), "c": Measured(NONE)}
    for part in ("density", "embedding", "pair", "triple"):
        place = f"{where}, {part}"
        if getattr(potential, part) == "0":
            continue
        powers = _measured(potential.tree(part), names, quantities, place)
        if part == "density":
            names["rho"] = Measured(powers)
        else:
            _refuse_unless_energy(powers, quantities, place)
    return values


def _parameters(
    wanted: Sequence[str], quantities: Mapping[str, str | float], units: UnitSystem, where: str
) -> tuple[dict[str, Measured], dict[str, float]]:
    """What parameters measure, and their values in reduced units."""
    found = {name: _quantity(value, f"{where}, {name}", units) for name, value in quantities.items()}
    if set(found) != set(wanted):
        expected, came = f"values for {', '.join(wanted) or 'none'}", ", ".join(found) or "none"
        raise InputError(Problem(where, expected, came, "Give each of them, and no other."))
    names = {name: Measured(powers) for name, (powers, _) in found.items()}
    return names, {name: value for name, (_, value) in found.items()}


def _measured(tree: ast.expr, names: Mapping[str, Measured], quantities: Mapping[str, str | float], where: str) -> Powers:
    """The dimension of a formula. Raises `InputError` where it has none."""
    functions = dict.fromkeys(expressions.OF_ANGLES, Measured.inside_a_function) | {"sqrt": Measured.root}
    try:
        whole: Measured = expressions.evaluated(tree, names, functions, lambda value: Measured(NONE, float(value)))
    except MixedDimensionsError as error:
        raise InputError(Problem(where, error.expected, error.came, _remedy(quantities))) from error
    return whole.powers


def _refuse_unless_energy(powers: Powers, quantities: Mapping[str, str | float], where: str) -> None:
    if powers != ENERGY:
        raise InputError(Problem(where, "an energy", _words(powers), _remedy(quantities)))


def _remedy(quantities: Mapping[str, str | float]) -> str:
    given = ", ".join(f"{name} = {value}" for name, value in quantities.items())
    return f"Check the units: {given or 'none are given'}."


def _taken_apart(potential: PairPotential | BondedPotential) -> tuple[str, ast.expr, dict[str, Measured]]:
    """What messages call a potential, its tree, and what its coordinates measure."""
    if isinstance(potential, BondedPotential):
        return potential.where, potential.tree, {"r": Measured(LENGTH), "theta": Measured(NONE), "phi": Measured(NONE)}
    where = f"pair potential `{potential.name}`"
    names = {"r": Measured(LENGTH), "r2": Measured(LENGTH) ** Measured(NONE, 2.0)}
    return where, expressions.parsed(potential.expression, (*names, *potential.parameters), where), names


class MixedDimensionsError(ValueError):
    """A formula does to dimensions what cannot be done."""

    def __init__(self, expected: str, came: str) -> None:
        self.expected, self.came = expected, came
        super().__init__(f"expected {expected}; got {came}")


@dataclass(frozen=True)
class Measured:
    """What a part of a formula measures: its dimension, and its value where that is made of written numbers alone."""

    powers: Powers
    value: float | None = None

    def __add__(self, other: Measured) -> Measured:
        if self.powers != other.powers:
            raise MixedDimensionsError("terms of the same dimension to add", f"{_words(self.powers)} and {_words(other.powers)}")
        return Measured(self.powers, _both(self, other, lambda a, b: a + b))

    def __sub__(self, other: Measured) -> Measured:
        return self + -other

    def __neg__(self) -> Measured:
        return replace(self, value=None if self.value is None else -self.value)

    def __pos__(self) -> Measured:
        return self

    def __mul__(self, other: Measured) -> Measured:
        powers = tuple(a + b for a, b in zip(self.powers, other.powers, strict=True))
        return Measured((powers[0], powers[1], powers[2]), _both(self, other, lambda a, b: a * b))

    def __truediv__(self, other: Measured) -> Measured:
        return self * other ** Measured(NONE, -1.0)

    def __pow__(self, exponent: Measured) -> Measured:
        if exponent.powers != NONE:
            raise MixedDimensionsError("an exponent without a dimension", _words(exponent.powers))
        value = _both(self, exponent, lambda a, b: a**b)
        if self.powers == NONE:
            return Measured(NONE, value)
        if exponent.value is None:
            raise MixedDimensionsError("a written number as the power of what has a dimension", "a parameter")
        by = Fraction(exponent.value).limit_denominator(1000)
        return Measured((self.powers[0] * by, self.powers[1] * by, self.powers[2] * by), value)

    def inside_a_function(self) -> Measured:
        """What exp and its like give: they take no dimensions."""
        if self.powers != NONE:
            raise MixedDimensionsError("an argument without a dimension in exp, log and their like", _words(self.powers))
        return Measured(NONE)

    def root(self) -> Measured:
        """The square root."""
        return self ** Measured(NONE, 0.5)


def _both(one: Measured, other: Measured, operation: Any) -> float | None:
    """A value of two values, where both are known and it is a real number."""
    if one.value is None or other.value is None:
        return None
    try:
        found = operation(one.value, other.value)
    except (ZeroDivisionError, OverflowError):
        return None
    return found if isinstance(found, float) else None


def _quantity(value: str | float, where: str, units: UnitSystem) -> tuple[Powers, float]:
    """The dimension of a text with a unit, or of a bare number, and its value in reduced units."""
    if not isinstance(value, str):
        return NONE, float(value)
    expected = "a quantity such as `0.996 kJ/mol` or `3.405 angstrom`"
    try:
        quantity = read_quantity(value, expected)
    except UnitError as error:
        raise InputError(Problem(where, error.expected, error.came, error.remedy)) from error
    powers = [Fraction(0)] * 3
    for base, count in quantity.dimensionality.items():
        if base not in _BASE:
            remedy = "A product of charges is an energy times a length."
            raise InputError(Problem(where, "lengths, energies, masses, times and temperatures", f"`{value}`", remedy))
        by = Fraction(count).limit_denominator(1000)
        powers = [power + by * each for power, each in zip(powers, _BASE[base], strict=True)]
    length, energy, mass = powers
    dimension = Dimension("quantity", value, length=float(length), energy=float(energy), mass=float(mass))
    try:
        reduced = _in_base_units(quantity) / units.scale(dimension)
    except ArithmeticError:  # powers beyond the largest double
        reduced = math.nan
    if not math.isfinite(reduced):
        raise InputError(Problem(where, expected, f"`{value}`", "Give a finite number."))
    return (length, energy, mass), reduced


def _in_base_units(quantity: pint.Quantity) -> float:
    """A quantity in SI base units, with temperatures as k_B T and amounts as single molecules."""
    for base, count in dict(quantity.dimensionality).items():
        quantity = quantity * registry().Quantity(1, _SINGLE[base]) ** count if base in _SINGLE else quantity
    return float(quantity.to_base_units().magnitude)


def _words(powers: Powers) -> str:
    """A dimension for a reader: `energy length^6`."""
    named = zip(("length", "energy", "mass"), powers, strict=True)
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in named if power) or "no dimension"
