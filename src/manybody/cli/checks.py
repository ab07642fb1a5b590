"""`manybody checks`: which claims can be tested."""

from __future__ import annotations

from manybody.cli.members import show_members
from manybody.cli.systems import Json, Name


def checks(name: Name = None, json: Json = False) -> None:
    """Which claims can be tested: parameters, units, defaults and bounds."""
    show_members("checks", name, json)
