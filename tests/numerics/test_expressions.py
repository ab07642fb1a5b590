"""Formulas as text: what they are worth, and that nothing but arithmetic gets through."""

import math

import pytest
import sympy

from manybody.core.errors import InputError
from manybody.numerics.expressions import in_floats, parsed, symbolic
from manybody.numerics.pair_sums import Formula, generate
from manybody.numerics.pairs import PairPotential

ATTACK = 'r # """; raise SystemExit("executed"); """'


def test_a_text_is_worth_what_python_makes_of_it():
    text, names = "-a*exp(-r/2) + 3*sqrt(r2)**-2 - (+a)*1e-1/erf(r)", {"a": 1.7, "r": 1.3, "r2": 1.69}
    expected = -1.7 * math.exp(-0.65) + 3 * 1.3**-2 - 1.7 * 0.1 / math.erf(1.3)
    assert in_floats(parsed(text, names, "here"), names) == pytest.approx(expected, rel=1e-14)
    symbols = {name: sympy.Symbol(name, positive=True) for name in names}
    value = symbolic(text, symbols, "here").subs({symbols[name]: number for name, number in names.items()})
    assert float(value) == pytest.approx(expected, rel=1e-14)


def test_what_overflows_or_is_not_defined_is_no_error_of_python():
    names = {"r": 1e-200}
    assert in_floats(parsed("r**-12", names, "here"), names) == math.inf
    assert math.isnan(in_floats(parsed("log(-r)", names, "here"), names))
    assert math.isnan(in_floats(parsed("(-r)**0.5", names, "here"), names))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ATTACK, "Leave out comments"),
        ("r + \uff52", "Leave out comments"),  # a wide r, which Python takes for r
        ("exp", "column 1: expected one of a, r; got exp"),
        ("r + exp(r, r)", "column 5: expected one argument of exp"),
        ("exp(x=r)", "one argument of exp"),
        ("exp()", "one argument of exp"),
        ("exp(*r)", "Starred"),
        ("r % 2", "Mod"),
        ("~r", "Invert"),
        ("r if r else 1", "IfExp"),
        ("(r, r)", "Tuple"),
        ("r*True", "column 3: .* got Constant"),
        ("r + 2j", "Constant"),
        ("r + 9**9**9", "column 5: expected a finite number"),
        ("1e999*r", "finite number"),
        ("r/(1 - 1)", "finite number"),
        ("r + 1/0", "column 5: expected a finite number"),
        ("sqrt(-1)*r", "finite number"),
        ("-" * 500 + "r", "operations inside each other"),
        ("(" * 500 + "r" + ")" * 500, "arithmetic expression"),
        ("r\0", "arithmetic expression"),
        ("r+" * 2000 + "r", "at most 2000 characters"),
        ("", "arithmetic expression"),
    ],
)
def test_nothing_else_gets_through(text, said):
    with pytest.raises(InputError, match=said):
        parsed(text, ("r", "a"), "here")


@pytest.mark.parametrize("name", ["a; import os", "lambda", "exp", "r2", "math", "_x", "", "\u00e9"])
def test_parameters_cannot_be_called_what_generated_code_means_by_something_else(name):
    with pytest.raises(InputError, match="parameters named by letters"):
        PairPotential("wrong", "1/r", (name,))


def test_a_name_cannot_end_the_text_that_it_stands_in():
    with pytest.raises(InputError, match="a name of letters"):
        PairPotential('"""', "1/r")


def test_the_text_that_an_exported_program_carries_is_checked_as_well():
    with pytest.raises(InputError, match="Leave out comments"):
        generate(Formula(ATTACK, ()))
