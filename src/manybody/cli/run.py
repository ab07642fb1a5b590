"""`manybody run`: a study to its certificate."""

from __future__ import annotations

import json as json_text
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from manybody.core.errors import ManybodyError
    from manybody.core.study import Study
    from manybody.study.run import Outcome


def run(
    study: Annotated[Path, typer.Argument(help="A study file, or a folder with study.yaml.", show_default=False)],
    json: Annotated[
        bool, typer.Option("--json", help="End standard output with one JSON line; progress goes to standard error.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the verdict only.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, certificate and results (default: runs/NAME-DIGEST).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change a field of the study, such as system.temperature=0.9; repeatable."
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="How many workers to use (default: one a core).")] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on a cluster (tls://HOST:PORT) or a federation (https://HOST:PORT)."),
    ] = None,
    trust: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="How nodes are checked: off, default, or settings such as spot=0.2,margin=3 (default: on in a federation).",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Compute everything again, or only what is not finished.")
    ] = False,
) -> None:
    """Run a study: compute its tasks, measure, check, and report.

    Finished tasks are kept and never run again. Exit code 0: every check holds; 1: a check fails or is undecided;
    2: the input is wrong; 130: interrupted, with all finished work kept.
    """
    from manybody.study.file import load_study

    asked = load_study(study, settings or [])
    from manybody.cli.progress import listener
    from manybody.core.errors import ManybodyError
    from manybody.study.run import RunOptions, run_study

    command = _command(study, settings or [], nodes, out, network, trust)
    options = RunOptions(out=out, workers=nodes, fresh=fresh, command=command, network=network, trust=trust)
    with listener(sys.stderr if json else sys.stdout, quiet=quiet, json=json) as watching:
        try:
            outcome = run_study(asked, options, watching)
        except KeyboardInterrupt:
            watching.interrupted()
            raise
        except ManybodyError as error:
            if json:
                typer.echo(json_text.dumps(_stopped(asked, error)))
            raise
    if json:
        typer.echo(json_text.dumps(_summary(outcome)))
    raise typer.Exit(0 if outcome.verdict == "holds" else 1)


def _summary(outcome: Outcome) -> dict[str, Any]:
    """What the JSON line says."""
    tally = outcome.tally
    return {
        "study": outcome.study,
        "digest": outcome.digest,
        "verdict": str(outcome.verdict),
        "certificate": str(outcome.certificate),
        "report": str(outcome.report),
        "tasks": {"total": tally.total, "computed": tally.computed, "cached": tally.cached, "failed": tally.failed},
        "wall_s": round(outcome.wall_s, 3),
    }


def _stopped(study: Study, error: ManybodyError) -> dict[str, Any]:
    """What the JSON line says of a run that came to no certificate."""
    nothing = {"certificate": None, "report": None, "tasks": None, "wall_s": None}
    return {"study": study.name, "digest": study.digest, "verdict": "undecided"} | nothing | {"error": str(error)}


def _command(
    study: Path, settings: list[str], nodes: int | None, out: Path | None, network: str | None, trust: str | None
) -> str:
    """The command that repeats this run."""
    words = ["manybody", "run", str(study)]
    for setting in settings:
        words += ["--set", setting]
    if nodes is not None:
        words += ["--nodes", str(nodes)]
    if out is not None:
        words += ["--out", str(out)]
    if network is not None:
        words += ["--network", network]
    if trust is not None:
        words += ["--trust", trust]
    return shlex.join(words)
