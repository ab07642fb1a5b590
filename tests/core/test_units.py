"""Units at the edge."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybody.core import units
from manybody.core.units import UnitError, UnitSystem, parse_quantity, parse_si, show_quantity

ARGON = UnitSystem(length=3.405e-10, energy=parse_si("119.8 K", units.ENERGY), mass=parse_si("39.948 u", units.MASS))


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("120 K", units.TEMPERATURE, 120.0),
        ("3.405 angstrom", units.LENGTH, 3.405e-10),
        ("0.5 nm", units.LENGTH, 5e-10),
        ("2 fs", units.TIME, 2e-15),
        ("1 kJ/mol", units.ENERGY, 1000 / 6.02214076e23),
        ("1 eV", units.ENERGY, 1.602176634e-19),
        ("119.8 K", units.ENERGY, 119.8 * 1.380649e-23),
        ("1 bar", units.PRESSURE, 1e5),
    ],
)
def test_text_with_a_unit_becomes_si(text: str, dimension: units.Dimension, expected: float) -> None:
    assert parse_si(text, dimension) == pytest.approx(expected, rel=1e-12)


def test_argon_in_reduced_units() -> None:
    # The unit of time of argon, sigma sqrt(m / epsilon), is 2.156 ps (Rahman, Phys. Rev. 136, A405, 1964, parameters).
    assert ARGON.scale(units.TIME) == pytest.approx(2.156e-12, rel=1e-3)
    assert parse_quantity("119.8 K", units.TEMPERATURE, ARGON) == pytest.approx(1.0, rel=1e-12)
    assert parse_quantity("1/(3.405 angstrom)^3", units.NUMBER_DENSITY, ARGON) == pytest.approx(1.0, rel=1e-12)


@given(st.floats(1e-6, 1e6), st.sampled_from([units.LENGTH, units.TIME, units.ENERGY, units.TEMPERATURE, units.NUMBER_DENSITY]))
def test_shown_quantities_are_read_back(value: float, dimension: units.Dimension) -> None:
    # Six digits are shown.
    assert parse_quantity(show_quantity(value, dimension, ARGON), dimension, ARGON) == pytest.approx(value, rel=1e-5)
    assert parse_quantity(f"{value} reduced", dimension, ARGON) == value
    assert parse_quantity(value, dimension, None) == value


@pytest.mark.parametrize(
    ("value", "system", "part"),
    [
        ("120 kg", ARGON, "dimension [mass]"),
        (120, ARGON, "`120 K` or `120 reduced`"),
        ("12 Kelwin", ARGON, "Kelwin"),
        ("120 K", None, "reduced units"),
        ("x reduced", None, "before `reduced`"),
        ("", ARGON, "temperature"),
        ("1e999 K", ARGON, "finite"),
        ("; import os", ARGON, "temperature"),
    ],
)
def test_wrong_quantities_say_what_to_do(value: object, system: UnitSystem | None, part: str) -> None:
    with pytest.raises(UnitError, match=r"expected .+; got .+") as caught:
        parse_quantity(value, units.TEMPERATURE, system)  # type: ignore[arg-type]
    assert part in str(caught.value)


def test_scales_combine_as_dimensions_say() -> None:
    pressure = ARGON.scale(units.PRESSURE)
    assert pressure == pytest.approx(ARGON.scale(units.ENERGY) * ARGON.scale(units.NUMBER_DENSITY), rel=1e-12)
    velocity = ARGON.scale(units.LENGTH) / ARGON.scale(units.TIME)
    assert 0.5 * ARGON.mass * velocity**2 == pytest.approx(0.5 * ARGON.energy, rel=1e-12)
    assert math.isclose(ARGON.scale(units.TEMPERATURE), 119.8, rel_tol=1e-12)
