"""`manybody systems`, `methods` and `measures`: what exists, straight from the typed specs."""

from __future__ import annotations

from typing import Annotated

import typer

from manybody.cli.members import show_members

Name = Annotated[str | None, typer.Argument(help="One of them; all if left out.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def systems(name: Name = None, json: Json = False) -> None:
    """What can be simulated: parameters, units, defaults and bounds."""
    show_members("systems", name, json)


def methods(name: Name = None, json: Json = False) -> None:
    """How systems are advanced or evaluated: parameters, units, defaults and bounds."""
    show_members("methods", name, json)


def measures(name: Name = None, json: Json = False) -> None:
    """What can be measured."""
    show_members("measures", name, json)
