"""The interpreter that has Flower: what it depends on clashes with tools of the tests, so it has an environment of its own."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

REMEDY = "Flower is not installed: `make flower` gives it an environment, or MANYBODY_FLOWER_PYTHON names its interpreter"


def interpreter() -> str | None:
    """This one if it has Flower, else the one that ``MANYBODY_FLOWER_PYTHON`` names, else that of ``make flower``; or None."""
    if importlib.util.find_spec("flwr"):
        return sys.executable
    made = Path(sys.prefix) / "flower" / "bin" / "python"
    return os.environ.get("MANYBODY_FLOWER_PYTHON") or (str(made) if made.exists() else None)
