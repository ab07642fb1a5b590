"""How an error is told: every problem with its place, the expectation, what came, and the remedy."""

from __future__ import annotations

import typer

from manybody.core.errors import InputError, ManybodyError


def complain(error: ManybodyError) -> None:
    """Print an error on standard error; one block a problem."""
    if not isinstance(error, InputError):
        typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {error}", err=True)
        return
    for problem in error.problems:
        typer.secho(problem.where, bold=True, err=True)
        typer.echo(f"  expected  {problem.expected}", err=True)
        typer.echo(f"  got       {problem.came}", err=True)
        typer.echo(f"  remedy    {problem.remedy}", err=True)
    number = len(error.problems)
    typer.echo(f"{number} problem{'s' if number != 1 else ''}; nothing has been done.", err=True)
