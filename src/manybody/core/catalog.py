"""The catalog: systems, methods, measures and checks, found by entry points alone.

The built-ins use the same groups as anyone else's package: ``manybody.systems``, ``manybody.methods``,
``manybody.measures``, ``manybody.checks``, ``manybody.backends``, ``manybody.rules``, ``manybody.embeddings``,
``manybody.energies``.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, cast

from manybody.core.errors import InputError, Problem
from manybody.core.spec import NamedSpec

Group = Literal["systems", "methods", "measures", "checks", "backends", "rules", "embeddings", "energies"]


@cache
def entries(group: Group) -> dict[str, EntryPoint]:
    """The members of a group by name, not yet imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=f"manybody.{group}"), key=lambda e: e.name)}


def load(group: Group, name: str) -> Any:
    """Import the member `name` of `group`; an unknown name raises `InputError` with the closest known one."""
    known = entries(group)
    if name not in known:
        raise InputError(unknown(group, name))
    return known[name].load()


def load_spec(group: Group, name: str) -> type[NamedSpec]:
    """The spec class of a system, method, measure or check."""
    return cast("type[NamedSpec]", load(group, name))


def unknown(group: Group, name: str) -> Problem:
    """What to say of a name that no installed package brings."""
    return Problem(
        where=group, expected=f"one of {', '.join(entries(group))}", came=f"`{name}`", remedy=suggest(name, entries(group))
    )


def suggest(name: str, known: Any) -> str:
    """The remedy for a misspelt name: the closest known one, or where to see them all."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(known)}."
