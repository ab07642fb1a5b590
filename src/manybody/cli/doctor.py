"""`manybody doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import json as json_text
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

LEAST_SPACE = 1_000_000_000  # bytes; a study of the gallery leaves a tenth of that
PATIENCE_S = 60  # for a question to another program; importing torch on a slow disk takes half of that

_THREADING = """
import importlib
for layer in ("tbb", "omp", "workqueue"):
    name = "workqueue" if layer == "workqueue" else layer + "pool"
    try:
        importlib.import_module("numba.np.ufunc." + name)
    except ImportError:
        continue
    print(layer)
"""
_DEVICES = """
import torch
for index in range(torch.cuda.device_count()):
    properties = torch.cuda.get_device_properties(index)
    print(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, through torch {torch.__version__}")
"""


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at. `missing` stops studies from running; `absent` is something that would help."""

    name: str
    state: Literal["good", "absent", "missing"]
    found: str
    remedy: str = ""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Ask torch for GPUs; takes a few seconds.")] = False,
) -> None:
    """Say what is here and what is missing: versions, threads, compiler, GPU, and where things are kept.

    Exit code 0: studies can run; 1: something they need is missing.
    """
    found = [*_packages(), *_machine(), _compiler(), _threading(), _device(gpu), *_members(), *_places()]
    if json:
        typer.echo(json_text.dumps([asdict(diagnosis) for diagnosis in found], indent=2))
    else:
        _print(found)
    raise typer.Exit(1 if any(diagnosis.state == "missing" for diagnosis in found) else 0)


def _print(found: list[Diagnosis]) -> None:
    marks = {"good": typer.style("good   ", fg="green"), "absent": typer.style("absent ", fg="yellow")}
    marks["missing"] = typer.style("missing", fg="red", bold=True)
    for diagnosis in found:
        typer.echo(f"{marks[diagnosis.state]}  {diagnosis.name:<18} {diagnosis.found}")
        if diagnosis.remedy:
            typer.echo(f"{'':<28} {diagnosis.remedy}")
    missing = sum(diagnosis.state == "missing" for diagnosis in found)
    typer.echo("Studies can run." if not missing else f"{missing} missing: studies cannot run until that is put right.")


def _packages() -> Iterator[Diagnosis]:
    """Python, and every package that is declared as a dependency, against its declared versions."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    yield Diagnosis("python", "good", sys.version.split()[0])
    yield Diagnosis("manybody", "good", version("manybody"))
    for text in sorted(requires("manybody") or []):
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        remedy = f"{Path(sys.executable).name} -m pip install '{wanted.name}{wanted.specifier}'"
        try:
            here = version(wanted.name)
        except PackageNotFoundError:
            yield Diagnosis(wanted.name, "missing", f"needed: {wanted.specifier}", remedy)
            continue
        fits = wanted.specifier.contains(here.split("+")[0], prereleases=True)
        yield Diagnosis(wanted.name, "good" if fits else "missing", here, "" if fits else remedy)


def _machine() -> Iterator[Diagnosis]:
    import psutil

    from manybody.store.provenance import cpu_model, usable_cores

    memory = psutil.virtual_memory()
    limits = ", ".join(f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in os.environ)
    yield Diagnosis("processor", "good", f"{cpu_model()}, {usable_cores()} cores usable")
    yield Diagnosis("threads", "good", limits or "one a worker, one worker a core")
    yield Diagnosis("memory", "good", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available")


def _compiler() -> Diagnosis:
    """A C++ compiler, which torch's compiled kernels need on the CPU."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        path = shutil.which(name)
        if path:
            lines = _ask(path, "--version")
            return Diagnosis("compiler", "good", lines[0] if lines else path)
    remedy = "Install g++ or clang++ (Debian: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)."
    return Diagnosis("compiler", "absent", "no C++ compiler: torch programs run uncompiled", remedy)


def _threading() -> Diagnosis:
    """The threading layers of Numba that can be loaded here."""
    layers = _ask(sys.executable, "-c", _THREADING)
    if layers:
        return Diagnosis("numba threading", "good", ", ".join(layers))
    return Diagnosis("numba threading", "missing", "Numba does not start", "Reinstall numba and llvmlite.")


def _device(ask_torch: bool) -> Diagnosis:
    """GPUs, from the driver's own tool; from torch where asked."""
    tool = shutil.which("nvidia-smi")
    if ask_torch:
        names = _ask(sys.executable, "-c", _DEVICES)
    else:
        names = _ask(tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader") if tool else []
    if names:
        return Diagnosis(
            "gpu", "good", "; ".join(names), "" if ask_torch else "`manybody doctor --gpu` asks whether torch can use it."
        )
    return Diagnosis("gpu", "absent", "none: everything runs on the processor")


def _members() -> Iterator[Diagnosis]:
    """Whether every system, method, measure, check and backend that is installed can be loaded."""
    from manybody.core import catalog

    groups: tuple[catalog.Group, ...] = ("systems", "methods", "measures", "checks", "backends")
    for group in groups:
        names = catalog.entries(group)
        broken: list[str] = []
        for name, entry in names.items():
            try:
                entry.load()
            except (ImportError, AttributeError) as error:
                broken.append(f"{name} ({error})")
        remedy = "Reinstall the package that brings it." if broken else ""
        yield Diagnosis(group, "missing" if broken else "good", "; ".join(broken) or ", ".join(names), remedy)


def _places() -> Iterator[Diagnosis]:
    """Where things are kept, the space that is free, and whether the ledger is whole."""
    from manybody.store.home import Home

    home = Home().path
    chosen = "MANYBODY_HOME" if os.environ.get("MANYBODY_HOME") else "the default; MANYBODY_HOME changes it"
    near = next(folder for folder in (home, *home.parents) if folder.exists())
    writable = near.is_dir() and os.access(near, os.W_OK | os.X_OK)
    remedy = "" if writable else f"Make {near} a folder that you may write to, or set MANYBODY_HOME."
    yield Diagnosis("home", "good" if writable else "missing", f"{home} ({chosen})", remedy)
    free = shutil.disk_usage(near).free
    roomy = free >= LEAST_SPACE
    found = f"{free / 1e9:.1f} GB free"
    yield Diagnosis("space", "good" if roomy else "missing", found, "" if roomy else "Free some, or set MANYBODY_HOME.")
    yield _ledger(home)
    aside = list((home / "objects" / "quarantine").glob("*"))
    if aside:
        came = f"{len(aside)} corrupt results were set aside and are computed again"
        yield Diagnosis("quarantine", "absent", came, f"Check the disk; then remove {home / 'objects' / 'quarantine'}.")


def _ledger(home: Path) -> Diagnosis:
    from contextlib import closing

    from manybody.core.errors import StoreError
    from manybody.store.home import Home

    address = Home(home).ledger_address
    if isinstance(address, Path) and not address.exists():
        return Diagnosis("ledger", "good", "none yet; the first run makes it")
    remedy = f"Move {address} away and run again; its tasks will be computed anew."
    if not isinstance(address, Path):
        remedy = "Check the server, or unset MANYBODY_LEDGER to keep the ledger in a file."
    try:
        with closing(Home(home).ledger()) as ledger:
            complaint = ledger.database.complaint()
            counts = f"{len(ledger.studies())} studies, {len(ledger.runs())} runs"
    except StoreError as error:
        return Diagnosis("ledger", "missing", str(error), remedy)
    if complaint:
        return Diagnosis("ledger", "missing", complaint, remedy)
    return Diagnosis("ledger", "good", counts)


def _ask(*command: str) -> list[str]:
    """The lines that a program answers with; none where it does not run or fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
