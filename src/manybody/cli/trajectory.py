"""`manybody trajectory`: the stored configurations of a run, as a file that other tools open."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manybody.core.errors import InputError, Problem

if TYPE_CHECKING:
    from manybody.core.study import Plan, Realisation
    from manybody.core.task import Output, Task
    from manybody.store.ledger import Ledger


def trajectory(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's number or its folder.", show_default=False)],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What to write: .xtc .dcd .pdb .gro .h5md .xyz", show_default=False)
    ],
    point: Annotated[int, typer.Option(help="Which point of the sweep, from 0.")] = 0,
    repeat: Annotated[int, typer.Option(help="Which repeat, from 0.")] = 0,
) -> None:
    """Write the stored configurations of one run as a trajectory; the ending says of what kind."""
    from manybody.store.home import Home
    from manybody.study.expand import expand
    from manybody.study.file import load_study
    from manybody.study.trajectories import frames_of, write_trajectory

    home = Home()
    with closing(home.ledger()) as ledger:
        plan = expand(load_study(_folder(ledger, run)))
        chosen = _realisation(plan, point, repeat)

        def output(task: Task) -> Output:
            row = ledger.result(task.digest)
            if row is None:
                remedy = "Run the study to its end: `manybody run STUDY`."
                raise InputError(Problem(task.label, "a result", "none in this home", remedy))
            return home.objects.get(row.result)

        frames = frames_of(chosen, output, plan.study.unit_system)
    write_trajectory(frames, file)
    last = f"{frames.times[-1]:g}{' ps' if frames.physical else ''}" if len(frames.times) else "nothing"
    typer.echo(f"{file}: {len(frames.times)} configurations of {len(frames.numbers)} particles, up to {last}")


def _folder(ledger: Ledger, run: str) -> Path:
    if run.isdigit():
        return ledger.run(int(run)).out
    return Path(run)


def _realisation(plan: Plan, point: int, repeat: int) -> Realisation:
    for found in plan.realisations:
        if (found.point.index, found.repeat) == (point, repeat):
            return found
    expected = f"a point from 0 to {len(plan.points) - 1} and a repeat from 0 to {plan.study.repeats - 1}"
    raise InputError(Problem("trajectory", expected, f"point {point}, repeat {repeat}", "Choose one of these."))
