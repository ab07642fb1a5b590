"""The command line: one file per verb. Importing it loads neither torch nor anything else that is slow to start."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from manybody import __version__
from manybody.cli import checks, doctor, join, network, new, nodes, run, show, systems, trajectory
from manybody.cli.complaints import complain
from manybody.core.errors import ManybodyError

INTERRUPTED = 130  # 128 + SIGINT, the shell's custom

app = typer.Typer(
    name="manybody",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # an unexpected exception is a bug, shown as Python shows it
)
for name, verb in (
    ("run", run.run),
    ("show", show.show),
    ("trajectory", trajectory.trajectory),
    ("new", new.new),
    ("doctor", doctor.doctor),
    ("invite", network.invite),
    ("join", join.join),
    ("leave", join.leave),
    ("revoke", network.revoke),
    ("nodes", nodes.nodes),
    ("systems", systems.systems),
    ("methods", systems.methods),
    ("measures", systems.measures),
    ("checks", checks.checks),
):
    app.command(name)(verb)
app.add_typer(network.network, name="network")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"manybody {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Many machines, one physics: a question goes in, a certified answer comes out."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command `manybody`; leaves with the exit code.

    0 done, and every check holds; 1 a check fails or is undecided, or a task failed; 2 the input is wrong;
    130 interrupted.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="manybody")
    except ManybodyError as error:
        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
