"""What pydantic says of a value, in the project's words: what was expected, what came, where, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pydantic_core import ErrorDetails

from manybody.core import catalog
from manybody.core.errors import Problem
from manybody.core.units import UnitSystem, show_quantity
from manybody.study.fields import Parameter

_EXPECTED = {
    "finite_number": "a finite number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of ordinary size",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
}
_BOUNDS = {"greater_than": ("gt", "more than"), "greater_than_equal": ("ge", "at least"), "less_than": ("lt", "less than")}
_BOUNDS["less_than_equal"] = ("le", "at most")


def problem_of(error: ErrorDetails, where: str, came: str, field: Parameter | None, units: UnitSystem | None) -> Problem:
    """One pydantic error as a problem. `came` is the value as the user wrote it; `field` says what was asked for."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "refused":
        remedy = context["remedy"]
        if units is not None and field and field.dimension:
            remedy += f" These numbers are in reduced units of the study; written was {came}."
        return Problem(where, context["expected"], context["came"], remedy)
    means = field.description if field and field.description else "see `manybody systems`, `methods`, `measures` and `checks`"
    if kind == "missing":
        return _missing(str(error["loc"][-1]), where, field)
    if kind in _BOUNDS:
        expected = _bound(kind, context, field, units)
        return Problem(where, expected, came, f"Give {expected} ({means}).")
    if kind == "literal_error" and field:
        return Problem(where, f"one of {', '.join(field.choices)}", came, catalog.suggest(came.strip("`"), field.choices))
    if kind == "too_short":
        return Problem(
            where, f"at least {context['min_length']} of them", came, f"List at least {context['min_length']}: {means}."
        )
    if kind == "string_pattern_mismatch":
        return Problem(where, f"{means} (`{context['pattern']}`)", came, "Use lower-case letters, digits and hyphens.")
    expected = _EXPECTED.get(kind, _sentence(error["msg"]))
    remedy = "Put it in quotes to make it text." if kind == "string_type" else f"Give {expected} ({means})."
    return Problem(where, expected, came, remedy)


def joined(problems: Iterable[Problem]) -> list[Problem]:
    """The problems, with those of one value that fits none of several types made one."""
    found: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        same = (problem.where, problem.came)
        earlier = found.get(same)
        if earlier and problem.expected not in earlier.expected:
            problem = replace(earlier, expected=f"{earlier.expected}, or {problem.expected}")
        found[same] = problem
    return list(found.values())


def _missing(name: str, where: str, field: Parameter | None) -> Problem:
    means = f" ({field.description})" if field and field.description else ""
    return Problem(where, f"the field `{name}`{means}", "nothing", f"Add a line `{name}: ...`.")


def _bound(kind: str, context: dict[str, Any], field: Parameter | None, units: UnitSystem | None) -> str:
    name, words = _BOUNDS[kind]
    bound = context[name]
    if field and field.dimension and bound:
        return f"{words} {show_quantity(bound, field.dimension, units)}"
    return f"{words} {bound:g}"


def _sentence(message: str) -> str:
    text = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
