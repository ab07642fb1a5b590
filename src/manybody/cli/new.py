"""`manybody new`: a commented study file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manybody.core.errors import InputError, Problem


def new(
    system: Annotated[str, typer.Argument(help="A system; see `manybody systems`.", show_default=False)],
    file: Annotated[Path | None, typer.Argument(help="Where to write (default: SYSTEM.yaml).", show_default=False)] = None,
) -> None:
    """Write a commented study file for a system: every field with its default, unit and bounds. It runs as it is."""
    from manybody.study.dump import new_study

    text = new_study(system)
    target = file or Path(f"{system}.yaml")
    if target.is_dir():
        target = target / "study.yaml"
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        problem = Problem(str(target), "a file that is not there yet", "one that is", "Name another file, or remove this one.")
        raise InputError(problem) from error
    except OSError as error:
        problem = Problem(str(target), "a place to write to", error.strerror or str(error), "Make the folder, or name another.")
        raise InputError(problem) from error
    typer.echo(f"{target} is written. Look through it, then: manybody run {target}")
