"""Units at the edge: text with a unit becomes a number in the unit system of the study, and back.

Inside, every number is in reduced units of the study's scales: lengths in sigma, energies in epsilon, masses
in m, so times in sigma sqrt(m / epsilon) and temperatures in epsilon / k_B.
"""

from __future__ import annotations

import math
import re
import tokenize
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from manybody.core.spec import Spec

if TYPE_CHECKING:
    import pint


@dataclass(frozen=True)
class Dimension:
    """The physical dimension of a field, as powers of length, energy, mass and temperature.

    Time is length mass^(1/2) energy^(-1/2); ``example`` is a unit of this dimension shown in messages.
    """

    name: str
    example: str
    length: float = 0.0
    energy: float = 0.0
    mass: float = 0.0
    temperature: float = 0.0


LENGTH = Dimension("length", "angstrom", length=1)
TIME = Dimension("time", "fs", length=1, energy=-0.5, mass=0.5)
ENERGY = Dimension("energy", "kJ/mol", energy=1)
MASS = Dimension("mass", "u", mass=1)
TEMPERATURE = Dimension("temperature", "K", temperature=1)
NUMBER_DENSITY = Dimension("number density", "1/nm^3", length=-3)
PRESSURE = Dimension("pressure", "bar", energy=1, length=-3)

Length = Annotated[float, LENGTH]
Time = Annotated[float, TIME]
Energy = Annotated[float, ENERGY]
Temperature = Annotated[float, TEMPERATURE]
NumberDensity = Annotated[float, NUMBER_DENSITY]


class UnitError(ValueError):
    """A text is not a quantity of the dimension asked for; says what was expected and the remedy."""

    def __init__(self, expected: str, came: str, remedy: str) -> None:
        self.expected, self.came, self.remedy = expected, came, remedy
        super().__init__(f"expected {expected}; got {came}. {remedy}")


@cache
def registry() -> pint.UnitRegistry:
    """The one pint registry; made on first use, because pint takes a while to start."""
    import pint

    return pint.UnitRegistry()


class UnitSystem(Spec):
    """What one reduced unit is, in SI: the length, energy and mass that the system's formulas are scaled by."""

    length: float = Field(gt=0, description="one unit of length, metres")
    energy: float = Field(gt=0, description="one unit of energy, joules")
    mass: float = Field(gt=0, description="one unit of mass, kilograms")

    def __str__(self) -> str:
        shown = {dimension.name: show_quantity(1.0, dimension, self) for dimension in (LENGTH, ENERGY, MASS)}
        return ", ".join(f"{name}: {value}" for name, value in shown.items())

    def is_close(self, other: UnitSystem) -> bool:
        """Whether both are the same to 1e-6: constants of nature differ by less from one table to the next."""
        return all(math.isclose(getattr(self, name), getattr(other, name), rel_tol=1e-6) for name in UnitSystem.model_fields)

    def scale(self, dimension: Dimension) -> float:
        """One reduced unit of `dimension`, in SI base units."""
        boltzmann = 1.380649e-23  # J/K, exact since the 2019 SI
        base = (self.length, self.energy, self.mass, self.energy / boltzmann)
        powers = (dimension.length, dimension.energy, dimension.mass, dimension.temperature)
        return math.prod(math.pow(scale, power) for scale, power in zip(base, powers, strict=True))


# A number and a unit, no towers of powers: what is handed to the units library cannot be made to compute for ever.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_UNIT = re.compile(r"[\w/*^·°%()\s+-]{0,60}")
_NO_NUMBER = (ArithmeticError, tokenize.TokenError)  # `1 kJ/0`, `1 kJ^9e9`; `1 (kJ`
_TOWER = re.compile(r"(\^|\*\*)[-+(\s]*\d+[\s)]*(\^|\*\*)|\d{3}")


def is_quantity(text: str) -> bool:
    """Whether a text from anybody looks like a number and a unit, so that it may be read; nothing is evaluated here."""
    number = _NUMBER.match(text)
    unit = text[number.end() :] if number else ""
    return number is not None and _UNIT.fullmatch(unit) is not None and not _TOWER.search(unit)


def read_quantity(text: str, expected: str) -> pint.Quantity:
    """A text with a unit as pint has it; raises `UnitError`, saying that `expected` was, where it is none."""
    import pint

    try:
        return registry().Quantity(text)
    except (pint.errors.PintError, ValueError, TypeError, AttributeError, SyntaxError, AssertionError, *_NO_NUMBER) as error:
        raise UnitError(expected, f"`{text}` ({error})", "Write a number, a space and a unit.") from error


def parse_si(text: str, dimension: Dimension) -> float:
    """A text such as ``120 K`` or ``3.405 angstrom`` in SI base units; energies may be molar or over k_B (``119.8 K``)."""
    ureg = registry()
    expected = f"a {dimension.name} such as `1 {dimension.example}`"
    quantity = read_quantity(text, expected)
    wanted = ureg.Quantity(1, dimension.example)
    for factor in (1, ureg.Quantity(1, "1/avogadro_constant"), ureg.Quantity(1, "boltzmann_constant")):
        candidate = quantity * factor
        reference = wanted / ureg.Quantity(1, "avogadro_constant") if dimension == ENERGY else wanted
        if candidate.check(reference.dimensionality):
            value = float(candidate.to_base_units().magnitude)
            if not math.isfinite(value):
                raise UnitError(expected, f"`{text}`", "Give a finite number.")
            return value
        if dimension != ENERGY:
            break
    came = (
        f"`{text}`, a quantity of dimension {quantity.dimensionality}" if quantity.dimensionality else f"`{text}`, without a unit"
    )
    raise UnitError(expected, came, f"Use a unit of {dimension.name}, for example {dimension.example}.")


def parse_quantity(value: str | float | int, dimension: Dimension, units: UnitSystem | None) -> float:
    """A value of a study file as a number in reduced units.

    `units` None means that the study is in reduced units: bare numbers and ``0.85 reduced`` are taken, physical
    units are refused because nothing says what one unit is. With `units`, a unit is required.
    """
    if isinstance(value, str) and value.split()[-1:] == ["reduced"]:
        try:
            return float(value.removesuffix("reduced").strip())
        except ValueError:
            raise UnitError("a number before `reduced`", f"`{value}`", "Write for example `0.85 reduced`.") from None
    try:
        number = float(value)  # YAML 1.1 reads 1e-3 as text
    except ValueError:
        si = parse_si(str(value), dimension)
        if units is None:
            raise UnitError(
                f"a {dimension.name} in reduced units",
                f"`{value}`",
                "This study is in reduced units: write a bare number, or give `units: {length: .., energy: .., mass: ..}`.",
            ) from None
        return si / units.scale(dimension)
    if units is not None:
        raise UnitError(
            f"a {dimension.name} with a unit", f"{value}", f"Write `{value} {dimension.example}` or `{value} reduced`."
        )
    return number


def show_quantity(value: float, dimension: Dimension, units: UnitSystem | None) -> str:
    """A reduced number for a reader: ``0.85`` in reduced units, ``101.8 K`` where the study has scales."""
    if units is None:
        return f"{value:.6g}"
    quantity = registry().Quantity(1, dimension.example).to_base_units()
    per_unit = float(quantity.magnitude)
    if dimension == ENERGY:
        per_unit /= 6.02214076e23
    return f"{value * units.scale(dimension) / per_unit:.6g} {dimension.example}"
