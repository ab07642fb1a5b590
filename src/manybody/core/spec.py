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
