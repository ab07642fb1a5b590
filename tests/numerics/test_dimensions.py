"""Formulas with units."""

import math

import pytest

from manybody.core import units
from manybody.core.errors import InputError
from manybody.core.units import UnitSystem, parse_si
from manybody.numerics.bonded_formulas import BondedPotential
from manybody.numerics.dimensions import in_reduced_units
from manybody.numerics.pairs import LENNARD_JONES, PairPotential
from manybody.numerics.potentials import BUCKINGHAM, LIBRARY, MORSE, SOFT_CORE, WCA, YUKAWA

ARGON = UnitSystem(length=3.405e-10, energy=parse_si("119.8 K", units.ENERGY), mass=parse_si("39.948 u", units.MASS))
MOLECULES = UnitSystem(length=1e-9, energy=1e3 / 6.02214076e23, mass=1e-3 / 6.02214076e23)
LIBRARY_IN_UNITS = {
    WCA.name: {"epsilon": "119.8 K", "sigma": "0.3405 nm"},
    LENNARD_JONES.name: {"epsilon": "0.99608 kJ/mol", "sigma": "3.405 angstrom"},
    MORSE.name: {"depth": "0.3429 eV", "a": "1.3588 1/angstrom", "place": "2.866 angstrom"},
    BUCKINGHAM.name: {"A": "1388.77 eV", "rho": "0.36262 angstrom", "C": "175 eV*angstrom^6"},
    YUKAWA.name: {"strength": "138.935 kJ/mol*nm", "kappa": "1 1/nm"},
    SOFT_CORE.name: {"epsilon": "1 kJ/mol", "sigma": "0.3 nm", "alpha": 0.5, "coupling": 0.3},
}


def test_argon_is_one_in_its_own_units() -> None:
    found = in_reduced_units(LENNARD_JONES, {"epsilon": "119.8 K", "sigma": "3.405 angstrom"}, ARGON)
    assert found == pytest.approx({"epsilon": 1.0, "sigma": 1.0}, rel=1e-14)


@pytest.mark.parametrize("name", sorted(LIBRARY_IN_UNITS))
def test_every_potential_with_dimensions_is_an_energy(name: str) -> None:
    found = in_reduced_units(LIBRARY[name], LIBRARY_IN_UNITS[name], MOLECULES)
    assert set(found) == set(LIBRARY[name].parameters)


def test_values_are_those_of_the_unit_system() -> None:
    # By the definitions of the units: 1 eV = 96.48533212 kJ/mol (CODATA 2018), 1 angstrom = 0.1 nm.
    found = in_reduced_units(BUCKINGHAM, LIBRARY_IN_UNITS[BUCKINGHAM.name], MOLECULES)
    assert found == pytest.approx({"A": 1388.77 * 96.48533212, "rho": 0.036262, "C": 175 * 96.48533212e-6}, rel=1e-9)


def test_the_energy_is_the_same_in_any_units() -> None:
    given = LIBRARY_IN_UNITS[MORSE.name]
    one, other = (MORSE.bind(in_reduced_units(MORSE, given, system)) for system in (ARGON, MOLECULES))
    r = 3.1e-10  # metres
    joules = [kernel.energy(r / system.length) * system.energy for kernel, system in ((one, ARGON), (other, MOLECULES))]
    assert joules[0] == pytest.approx(joules[1], rel=1e-12)


def test_roots_powers_and_numbers() -> None:
    mie = PairPotential("mie", "epsilon*((sigma/r)**n - sqrt(sigma/r)**(3*2)*exp(-r2/sigma**2))", ("epsilon", "sigma", "n"))
    assert in_reduced_units(mie, {"epsilon": "1 K", "sigma": "1 nm", "n": 14}, ARGON)["n"] == 14.0


@pytest.mark.parametrize(
    ("expression", "quantities", "part"),
    [
        ("epsilon*(sigma/r)**12", {"epsilon": "3.4 angstrom", "sigma": "3.4 angstrom"}, "an energy; got length"),
        ("epsilon*(r/sigma - sigma)", {"epsilon": "1 K", "sigma": "1 nm"}, "same dimension to add; got no dimension and length"),
        ("epsilon*exp(-r*sigma)", {"epsilon": "1 K", "sigma": "1 nm"}, "exp, log and their like; got length^2"),
        ("epsilon*sigma**(r/sigma)/sigma", {"epsilon": "1 K", "sigma": "1 nm"}, "a written number as the power"),
        ("epsilon*2**(r)", {"epsilon": "1 K"}, "an exponent without a dimension; got length"),
        ("epsilon", {"epsilon": "1 Kelwin"}, "Kelwin"),
        ("epsilon", {"epsilon": "nan K"}, "finite"),
        ("epsilon", {"epsilon": "1 elementary_charge"}, "product of charges"),
        ("epsilon", {"epsilon": 1.0}, "an energy; got no dimension"),
        ("epsilon", {"epsilon": "1 K", "sigma": "1 nm"}, "values for epsilon"),
    ],
)
def test_what_is_no_energy_is_refused_with_its_reason(expression: str, quantities: dict[str, str], part: str) -> None:
    names = tuple(name for name in ("epsilon", "sigma") if name in expression)
    with pytest.raises(InputError, match="pair potential `mine`") as refused:
        in_reduced_units(PairPotential("mine", expression, names), quantities, ARGON)
    assert part in str(refused.value)


def test_angles_of_bonded_formulas_have_no_dimension() -> None:
    held = BondedPotential("k/2*wrapped(phi - phi0)**2", ("k", "phi0"))
    found = in_reduced_units(held, {"k": "500 kJ/mol/rad^2", "phi0": "-60 degree"}, MOLECULES)
    assert found == pytest.approx({"k": 500.0, "phi0": -math.pi / 3}, rel=1e-14)
    spring = BondedPotential("k/2*(r - r0)**2", ("k", "r0"))
    assert in_reduced_units(spring, {"k": "2 kJ/mol/angstrom^2", "r0": "3 angstrom"}, MOLECULES) == pytest.approx(
        {"k": 200.0, "r0": 0.3}, rel=1e-14
    )
    with pytest.raises(InputError, match=r"an energy; got no dimension. Check the units: k = 500"):
        in_reduced_units(held, {"k": 500.0, "phi0": 1.0}, MOLECULES)
    with pytest.raises(InputError, match="same dimension to add; got no dimension and length"):
        in_reduced_units(held, {"k": "1 kJ/mol", "phi0": "1 nm"}, MOLECULES)
