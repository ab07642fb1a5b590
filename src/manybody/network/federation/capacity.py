"""What a node has and can do: workers, memory, devices, installed methods, and how fast the methods run here."""

from __future__ import annotations

from pathlib import Path

import psutil

from manybody.core import catalog
from manybody.core.protocols import MethodSpec, SystemSpec
from manybody.core.task import Task
from manybody.network.federation.protocol import Installed, Report
from manybody.network.local import Embedded
from manybody.network.machine import devices
from manybody.store.held import names
from manybody.store.provenance import provenance, usable_cores


def installed_methods() -> dict[str, Installed]:
    """Every method of this installation, with its version and stages."""
    specs = {name: catalog.load_spec("methods", name) for name in catalog.entries("methods")}
    return {
        name: Installed(version=spec.version, stages=tuple(spec.stages))
        for name, spec in specs.items()
        if issubclass(spec, MethodSpec)
    }


def report(workers: int | None = None, threads: int = 1, speed: dict[str, float] | None = None) -> Report:
    """What this machine has: as many workers of `threads` threads as fit, unless said otherwise."""
    return Report(
        workers=workers or max(1, usable_cores() // threads),
        threads=threads,
        memory_bytes=psutil.virtual_memory().total,
        devices=devices(),
        methods=installed_methods(),
        speed=speed or {},
        provenance=provenance(),
        data=tuple(sorted(names())),
    )


def measure(objects: Path, threads: int = 1) -> dict[str, float]:
    """How fast each method that offers a trial runs here: seconds of its predicted cost done a second.

    The trial runs twice: the first time compiles, and is not counted.
    """
    found = {}
    for name in catalog.entries("methods"):
        task = _trial(name)
        if task is None:
            continue
        with Embedded(objects, 1, threads) as backend:
            for number in range(2):
                backend.submit(f"trial-{number}", task, {})
                last = list(backend.events())[-1]
        if last.kind == "finished" and last.seconds > 0:
            found[name] = round(task.cost / last.seconds, 4)
    return found


def _trial(name: str) -> Task | None:
    """The first task of a method's trial; None where it has none."""
    spec = catalog.load_spec("methods", name)
    if not issubclass(spec, MethodSpec) or spec.trial is None:
        return None
    asked, changes = spec.trial
    system = catalog.load_spec("systems", str(asked["name"])).model_validate(asked)
    assert isinstance(system, SystemSpec)
    return spec.model_validate({"name": name, **changes}).plan(system, 0, 0)[0][0]
