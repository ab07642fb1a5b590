"""Provenance: with which versions, on which machine. Found without importing what it names."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from manybody.core.digest import digest_document

PACKAGES = ("manybody", "numpy", "numba", "torch")
OWN_TO_A_MACHINE = frozenset({"host", "cores"})  # of a provenance; what is left decides the bits of a result


def architecture(document: Mapping[str, Any]) -> str:
    """The class of machines that give the same bits: what a provenance says but for the machine's name and size.

    Empty where it says nothing.
    """
    said = {name: value for name, value in document.items() if name not in OWN_TO_A_MACHINE}
    return digest_document(said)[:16] if said else ""


def provenance() -> dict[str, str | int]:
    """Versions of Python and of the packages that compute (`absent` where not installed), host, platform, processor, cores."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}, **_machine()}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@cache
def _machine() -> dict[str, str | int]:
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
    }


@cache
def cpu_model() -> str:
    """The processor's name as its maker gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, where the system can say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
