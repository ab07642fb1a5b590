"""How numbers are written for readers."""

from __future__ import annotations

import math
import re


def with_error(value: float, error: float | None) -> str:
    """A value with its standard error in brackets, two digits of it: ``-5.51210(46)``, ``12.3(1.5)``, ``1.20(11)e-07``.

    The bracket counts in units of the last digit shown unless it has a decimal point of its own. An error that is
    missing, infinite or not a number is said; an error of 0 means exact.
    """
    if not math.isfinite(value):
        return "no value"
    if error is None or not math.isfinite(error):
        return f"{value:.6g} (error unknown)"
    if error <= 0:
        return f"{value:.6g}"
    largest = max(abs(value), error)
    power = math.floor(math.log10(largest))
    if -5 <= power < 6:
        return _fixed(value, error)
    return f"{_fixed(value / 10**power, error / 10**power)}e{power:+03d}"


def _fixed(value: float, error: float) -> str:
    decimals = 1 - int(f"{error:.1e}".partition("e")[2])  # after rounding: 0.0996 becomes 0.10
    value = round(value, decimals) + 0.0  # no negative zero
    if decimals <= 0:
        return f"{value:.0f}({round(error, decimals):.0f})"
    shown = f"{error:.{decimals}f}"
    return f"{value:.{decimals}f}({shown if float(shown) >= 1 else shown.replace('.', '').lstrip('0')})"


def plain(value: float | None) -> str:
    """A number without an error, three digits; ``no value`` where there is none."""
    return "no value" if value is None or not math.isfinite(value) else f"{value:.3g}"


_GREEK = {"epsilon": "\u03b5", "sigma": "\u03c3", "tau": "\u03c4", "rho": "\u03c1"}
_RAISED = str.maketrans("0123456789-", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b")


def typeset(text: str) -> str:
    """A symbol or unit in plain letters as it is printed: ``epsilon/sigma^3`` with Greek letters and a raised 3."""
    text = re.sub(r"\b(?:epsilon|sigma|tau|rho)\b", lambda word: _GREEK[word[0]], text)
    return re.sub(r"\^(-?\d+)", lambda power: power[1].translate(_RAISED), text)
