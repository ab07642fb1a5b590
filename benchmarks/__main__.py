"""``python -m benchmarks NAME [--json]``; ``python -m benchmarks --list``."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Result


def members() -> dict[str, str]:
    """Benchmarks by name, and the module of each: those that have a function `run`."""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        text = Path(__file__).with_name(f"{module.name}.py").read_text(encoding="utf-8")
        if "\ndef run(" in text:
            found[module.name.replace("_", "-")] = f"benchmarks.{module.name}"
    return found


def main() -> int:
    """Run one benchmark, or list them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours and a peer, in one interleaved run.")
    parser.add_argument("name", nargs="?", help="which benchmark")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--json", action="store_true", help="print nothing but one line of JSON a result")
    arguments = parser.parse_args()
    known = members()
    if arguments.list or not arguments.name:
        for name, module in known.items():
            print(f"{name:20} {(importlib.import_module(module).__doc__ or '').strip().splitlines()[0]}")
        return 0
    if arguments.name not in known:
        print(f"Expected one of {', '.join(known)}; got `{arguments.name}`. See `python -m benchmarks --list`.", file=sys.stderr)
        return 2
    results: list[Result] = importlib.import_module(known[arguments.name]).run()
    for result in results:
        if not arguments.json:
            print(shown(result))
        print(json.dumps(rounded(asdict(result))))
    return 0


def shown(result: Result) -> str:
    """A result for a reader."""
    if result.peer is None:
        return f"{result.name}: {result.ours:.3g} {result.unit}; the peer is not installed"
    note = "" if result.valid else " (void: the machine was disturbed)"
    return (
        f"{result.name}: {result.ours:.3g} against {result.peer:.3g} {result.unit} of version {result.peer_version}: "
        f"{result.ratio:.2f} times, target {result.target:g}{note}"
    )


def rounded(document: dict[str, Any]) -> dict[str, Any]:
    """Four digits of every number."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in document.items()}


if __name__ == "__main__":
    sys.exit(main())
