"""The members of the catalog as tables or JSON, straight from their typed specs."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from manybody.core.catalog import Group
    from manybody.core.spec import NamedSpec
    from manybody.study.fields import Parameter

_FACTS = ("symmetries", "conserved", "systems", "extent", "symbol", "unit", "methods", "kind")


def show_members(group: Group, name: str | None, json: bool) -> None:
    """Print one member of a group, or all of them."""
    from manybody.core import catalog

    names = [name] if name is not None else list(catalog.entries(group))
    members = [_member(catalog.load_spec(group, each)) for each in names]
    if json:
        typer.echo(json_text.dumps(members, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for member in members:
        _print(console, member)


def _member(spec: type[NamedSpec]) -> dict[str, Any]:
    """A member as a JSON document."""
    from manybody.study.fields import parameters

    facts = {fact: value for fact in _FACTS if (value := getattr(spec, fact, None))}
    return {
        "name": spec.model_fields["name"].default,
        "summary": spec.summary,
        **{fact: list(value) if isinstance(value, tuple) else value for fact, value in facts.items()},
        "parameters": [_parameter(field) for field in parameters(spec)],
    }


def _parameter(field: Parameter) -> dict[str, Any]:
    from pydantic_core import to_jsonable_python

    return {
        "name": field.name,
        "kind": field.kind,
        "dimension": field.dimension.name if field.dimension else None,
        "unit": field.dimension.example if field.dimension else None,
        "required": field.required,
        "default": to_jsonable_python(field.default),
        "bounds": dict(field.bounds),
        "limits": field.limits,
        "choices": list(field.choices),
        "description": field.description,
    }


def _print(console: Any, member: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text(member["name"], style="bold") + Text(f"  {member['summary']}", style="not bold"))
    for fact in _FACTS:
        if fact in member:
            value = member[fact]
            console.print(Text(f"  {fact}: {', '.join(value) if isinstance(value, list) else value}", style="dim"))
    if member["parameters"]:
        table = Table("parameter", "default", "unit, such as", "allowed", "what it is", box=None, padding=(0, 2))
        for field in member["parameters"]:
            default = "required" if field["required"] else json_text.dumps(field["default"])
            allowed = field["limits"] or " | ".join(field["choices"]) or field["kind"]
            table.add_row(*(Text(text) for text in (field["name"], default, field["unit"] or "", allowed, field["description"])))
        console.print(table)
    console.print()
