"""What `manybody show` prints: documents as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_STYLES = {
    "holds": "green",
    "finished": "green",
    "fails": "red",
    "failed": "red",
    "killed": "red",
    "undecided": "yellow",
    "running": "cyan",
    "interrupted": "yellow",
}


def print_document(kind: str, document: Any) -> None:
    """Print a document of one of the kinds that `show` knows."""
    _PRINTERS[kind](Console(highlight=False), document)


def _everything(console: Console, document: dict[str, Any]) -> None:
    _studies(console, document["studies"])
    console.print()
    _runs(console, document["runs"])


def _studies(console: Console, studies: list[dict[str, Any]]) -> None:
    if not studies:
        console.print("No studies yet. `manybody new SYSTEM` writes one to start from.")
        return
    table = _table("study", "digest", "runs", "recorded", "title")
    for study in studies:
        table.add_row(study["name"], study["digest"][:8], str(study["runs"]), _when(study["recorded"]), study["title"])
    console.print(table)


def _runs(console: Console, runs: list[dict[str, Any]]) -> None:
    if not runs:
        console.print("No runs yet.")
        return
    table = _table("run", "study", "digest", "state", "started", "took", "folder")
    for run in runs:
        took = "" if run["seconds"] is None else f"{run['seconds']:.1f} s"
        table.add_row(
            str(run["run"]), run["study"], run["digest"][:8], _state(run["state"]), _when(run["started"]), took, run["out"]
        )
    console.print(table)


def _run(console: Console, run: dict[str, Any]) -> None:
    _facts(console, run, ("run", "study", "digest", "state", "command", "out", "report", "certificate", "host"))
    console.print()
    table = _table("task", "stage", "repeat", "state", "attempts", "seconds", "worker", "reason")
    for task in run["tasks"]:
        stage = task["stage"] + (f" (replica {task['replica']})" if task["replica"] else "")
        seconds = f"{task['seconds']:.2f}" if task["state"] == "finished" else ""
        state = _state(task["state"])
        table.add_row(
            task["task"][:8], stage, str(task["repeat"]), state, str(task["attempts"]), seconds, task["worker"], task["reason"]
        )
    console.print(table)


def _task(console: Console, document: dict[str, Any]) -> None:
    _facts(
        console,
        {"task": document["digest"]} | document["task"],
        ("task", "method", "stage", "version", "seed", "repeat", "replica"),
    )
    _facts(console, document["task"]["system"] | document["task"]["parameters"])
    if document["result"]:
        console.print()
        _facts(console, {"result": document["result"]["digest"]} | document["result"], ("result", "bytes", "seconds", "worker"))
        _facts(console, document["result"]["provenance"])
    console.print()
    table = _table("attempt", "run", "state", "worker", "started", "reason")
    for attempt in document["attempts"]:
        number, state, started = str(attempt["number"]), _state(attempt["state"]), _when(attempt["started"])
        table.add_row(number, str(attempt["run"]), state, attempt["worker"], started, attempt["reason"])
    console.print(table)


def _certificate(console: Console, document: dict[str, Any]) -> None:
    _facts(console, document, ("study", "digest", "verdict", "path"))
    console.print()
    for finding in document["checks"]:
        value, tolerance = (f"{finding[key]:.3g}" if finding[key] is not None else "unknown" for key in ("value", "tolerance"))
        console.print(_state(finding["verdict"]) + Text(f"  {finding['name']}: {value}, tolerance {tolerance}"), soft_wrap=True)
        for line in (finding["claim"], f"tolerance: {finding['tolerance_from']}", finding["source"]):
            if line:
                console.print(Padding(Text(line, style="dim"), (0, 0, 0, 4)))
    if document["missing"]:
        console.print(f"Not checked: {', '.join(document['missing'])}.")


_PRINTERS: dict[str, Callable[[Console, Any], None]] = {
    "everything": _everything,
    "studies": _studies,
    "runs": _runs,
    "run": _run,
    "task": _task,
    "certificate": _certificate,
}


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")


def _facts(console: Console, document: dict[str, Any], names: tuple[str, ...] | None = None) -> None:
    """Names and values, one a line; those without a value are left out."""
    for name in names or tuple(document):
        if document.get(name) is not None:
            value = _state(document[name]) if name in ("state", "verdict") else Text(str(document[name]))
            console.print(Text(f"{name:<16}", style="dim") + value, soft_wrap=True)


def _state(state: str) -> Text:
    return Text(state, style=_STYLES.get(state, ""))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
