"""`manybody show`: studies, runs, one run, one task, one certificate."""

from __future__ import annotations

import json as json_text
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manybody.core.errors import InputError, Problem

if TYPE_CHECKING:
    from manybody.store.ledger import Ledger
    from manybody.store.rows import RunRow

LONGEST_RUN_NUMBER = 7  # digits; what is longer is the beginning of a digest


def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help="`studies`, `runs`, a run's number, a study's name, a task's digest, or `certificate`.",
            show_default=False,
        ),
    ] = "",
    which: Annotated[
        str, typer.Argument(metavar="[WHICH]", help="The run's number or the file of a certificate.", show_default=False)
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what the ledger holds: studies and runs, one run, one task, one certificate."""
    from manybody.cli import tables
    from manybody.store.home import Home

    if which and what != "certificate":
        raise InputError(Problem("show", "one thing to show", f"`{what} {which}`", "Only `certificate` takes a second word."))
    home = Home()
    with closing(home.ledger()) as ledger:
        kind, document = _look_up(ledger, what, which)
    if json:
        typer.echo(json_text.dumps(document, indent=2))
    else:
        tables.print_document(kind, document)


def _look_up(ledger: Ledger, what: str, which: str) -> tuple[str, Any]:
    """What is asked for as a JSON document, and which kind of thing it is."""
    if what == "certificate":
        return "certificate", _certificate(ledger, which)
    if what in ("", "studies", "runs"):
        runs = [_run(row) for row in ledger.runs()]
        studies = _studies(ledger)
        everything = {"studies": studies, "runs": runs}
        return (what or "everything"), everything[what] if what else everything
    if what.isdigit() and len(what) <= LONGEST_RUN_NUMBER:
        return "run", _one_run(ledger, int(what))
    named = [row.digest for row in ledger.studies() if row.name == what]
    if named:
        return "runs", [_run(row) for digest in named for row in ledger.runs(digest)]
    if set(what) <= set("0123456789abcdef"):
        return "task", _task(ledger, what)
    remedy = "Give `runs`, `studies`, a run's number, a study's name, or the beginning of a task's digest."
    raise InputError(Problem("show", "something that the ledger holds", f"`{what}`", remedy))


def _studies(ledger: Ledger) -> list[dict[str, Any]]:
    fields = ("digest", "name", "title", "recorded", "runs")
    return [{field: getattr(row, field) for field in fields} for row in ledger.studies()]


def _run(row: RunRow) -> dict[str, Any]:
    return {
        "run": row.id,
        "study": row.name,
        "digest": row.study,
        "state": "running" if row.alive else (row.verdict or "killed"),
        "started": row.started,
        "seconds": None if row.ended is None else row.ended - row.started,
        "out": str(row.out),
        "report": str(row.report) if row.report else None,
        "certificate": str(row.certificate) if row.certificate else None,
        "command": row.command,
    }


def _one_run(ledger: Ledger, number: int) -> dict[str, Any]:
    row = ledger.run(number)
    tasks = [
        {
            "task": task.task.digest,
            "method": task.task.method,
            "stage": task.task.stage,
            "repeat": task.task.repeat,
            "replica": task.task.replica,
            "state": task.state,
            "attempts": task.attempts,
            "worker": task.worker,
            "seconds": task.seconds,
            "result": task.result,
            "reason": task.reason,
        }
        for task in ledger.tasks(number)
    ]
    return _run(row) | {"host": row.host, "pid": row.pid, "provenance": dict(row.provenance), "tasks": tasks}


def _task(ledger: Ledger, prefix: str) -> dict[str, Any]:
    task = ledger.task(prefix)
    result = ledger.result(task.digest)
    attempts = [
        {field: getattr(row, field) for field in ("number", "run", "state", "worker", "started", "ended", "reason")}
        for row in ledger.attempts(task.digest)
    ]
    found = None
    if result is not None:
        found = {"digest": result.result, "bytes": result.nbytes, "seconds": result.seconds, "worker": result.worker}
        found |= {"provenance": dict(result.provenance)}
    return {"digest": task.digest, "task": task.document(), "cost": task.cost, "result": found, "attempts": attempts}


def _certificate(ledger: Ledger, which: str) -> dict[str, Any]:
    """The certificate in a file, in a run's folder, or of the run with this number; the newest if nothing is said."""
    from pydantic import ValidationError

    from manybody.core.certificate import Certificate

    path = _certificate_path(ledger, which)
    try:
        certificate = Certificate.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "Name a certificate.json, a run's folder, or a run's number."
        raise InputError(Problem(str(path), "a certificate", error.strerror or str(error), remedy)) from error
    except ValidationError as error:
        came = f"something else ({error.error_count()} misfits, the first: {error.errors()[0]['msg']})"
        remedy = "Name a certificate.json that `manybody run` wrote."
        raise InputError(Problem(str(path), "a certificate", came, remedy)) from error
    return certificate.model_dump(mode="json") | {"path": str(path)}


def _certificate_path(ledger: Ledger, which: str) -> Path:
    if which and not which.isdigit():
        path = Path(which)
        return path / "certificate.json" if path.is_dir() else path
    runs = [ledger.run(int(which))] if which else [row for row in ledger.runs() if row.certificate]
    if not runs or runs[0].certificate is None:
        came = f"run {which}, which has none" if which else "no run with one"
        raise InputError(Problem("show", "a run with a certificate", came, "Run the study to its end: `manybody run STUDY`."))
    return runs[0].certificate
