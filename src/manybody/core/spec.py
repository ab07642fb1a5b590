"""Typed, frozen specifications: what systems, methods, measures and checks are asked for with."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from manybody.core.digest import digest_document


class Frozen(BaseModel):
    """A frozen value that is checked when made and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Spec(Frozen):
    """A frozen value with an identity: its digest."""

    def document(self) -> dict[str, Any]:
        """The JSON document of this value: what is digested, stored and sent."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical document."""
        return digest_document(self.document())

    def __str__(self) -> str:
        """For a reader: the name and what differs from the defaults; without a name, every field."""
        fields = type(self).model_fields
        named = "name" in fields
        given = {name: getattr(self, name) for name in fields if name != "name"}
        told = [f"{name} {_short(value)}" for name, value in given.items() if not named or value != fields[name].default]
        parts = ([str(self.document()["name"])] if named else []) + ([f"({', '.join(told)})"] if told else [])
        return " ".join(parts)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class NamedSpec(Spec):
    """A spec that a catalog finds by its `name` (a ``Literal`` field in each member).

    ``summary`` is the one line that `manybody systems` and `manybody checks` print.
    """

    summary: ClassVar[str] = ""

    name: str


def refuse(field: str, expected: str, came: object, remedy: str) -> NoReturn:
    """Raise, inside a pydantic validator, an error that names the field, the expectation and the remedy."""
    raise PydanticCustomError(
        "refused",
        "expected {expected}; got {came}. {remedy}",
        {"field": field, "expected": expected, "came": str(came), "remedy": remedy},
    )


def refuse_unless_multiple(spec: Spec, field: str, unit_field: str) -> None:
    """Refuse, inside a pydantic validator, a field that is not a whole multiple (to 1e-6) of another field."""
    unit, value = getattr(spec, unit_field), getattr(spec, field)
    ratio = value / unit
    if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-6 * ratio:
        refuse(field, f"a whole multiple of {unit_field} = {unit:g}", f"{value:g}", f"Take {max(1, round(ratio)) * unit:g}.")
