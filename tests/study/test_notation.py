from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manybody.study.notation import plain, typeset, with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-5.5121, 4.55e-4, "-5.51210(46)"),
        (6.7714e-3, 1.72e-3, "0.0068(17)"),
        (1.266, 0.0136, "1.266(14)"),
        (12.34, 1.52, "12.3(1.5)"),
        (1234.0, 56.0, "1234(56)"),
        (12345.0, 1234.0, "12300(1200)"),
        (1.2e-7, 1.1e-8, "1.20(11)e-07"),
        (5.0e7, 3.0e4, "5.0000(30)e+07"),
        (3.0, 0.0996, "3.00(10)"),  # the error rounds up to a new digit
        (-0.001, 0.5, "0.00(50)"),  # no negative zero
        (0.0, 1e-9, "0.0(1.0)e-09"),
        (1.0, 0.0, "1"),
        (0.0, 0.0, "0"),
        (1.0, math.nan, "1 (error unknown)"),
        (1.0, math.inf, "1 (error unknown)"),
        (1.0, None, "1 (error unknown)"),
        (math.nan, 0.1, "no value"),
        (math.inf, 0.1, "no value"),
    ],
)
def test_a_value_is_written_with_two_digits_of_its_error(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


def read_back(text: str) -> tuple[float, float]:
    """The value and the error that a reader takes from the notation."""
    number, _, rest = text.partition("(")
    bracket, _, power = rest.partition(")")
    scale = float(f"1{power}") if power else 1.0
    last = 1.0 if "." in bracket else 10.0 ** -len(number.partition(".")[2])
    return float(number) * scale, float(bracket) * last * scale


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_a_reader_gets_back_value_and_error_to_the_digits_shown(value: float, error: float) -> None:
    assume(abs(value) < 1e13 * error)  # beyond that a double has no two digits of the error
    read_value, read_error = read_back(with_error(value, error))
    assert read_error == pytest.approx(error, rel=0.051)  # two digits: at most half of the second of 1.0
    assert abs(read_value - value) <= 0.051 * error + 1e-12 * abs(value)


def test_a_plain_number_has_three_digits_and_says_when_there_is_none() -> None:
    assert plain(0.123456) == "0.123"
    assert plain(None) == plain(math.nan) == "no value"


def test_units_are_printed_with_greek_letters_and_raised_powers() -> None:
    assert typeset("epsilon/sigma^3") == "ε/σ³"
    assert typeset("sigma^-12") == "σ⁻¹²"
    assert typeset("<x^2>, taut") == "<x²>, taut"
