"""The one version of Flower that the bridge is for, checked before anything of it is imported; its telemetry is off.

Flower's grid is an interface to derive from, but its messages can be made only by a process that says, in a field that
is Flower's own, which task it is; and secure aggregation is a legacy interface there. So no other version will do.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from manybody.core.errors import InputError, Problem

VERSION = "1.41.0"

try:
    found = version("flwr")
except PackageNotFoundError:
    found = "none"
if found != VERSION:
    raise InputError(Problem("flower", f"flwr {VERSION}", found, "Install it: pip install 'manybody[flower]'."))

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
telemetry: Any = import_module("flwr.supercore.telemetry")
telemetry.FLWR_TELEMETRY_ENABLED = "0"  # it has read the variable before where somebody else imported it first
