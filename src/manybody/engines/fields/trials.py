"""Small split fields whose rounds tell what a network costs: most of it waiting, moving or computing. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from manybody.numerics.rounds import Trial, load

if TYPE_CHECKING:
    from manybody.engines.fields.spec import AdvectedField, FiniteVolume

MOST_PARTS = 8  # on larger networks too: a trial has to be short
TIME_STEP = 1e-6  # stable on every grid here; the work of a step does not depend on it


class Case(NamedTuple):
    """A part's rows, the columns, the steps a round, and the rounds."""

    rows: int
    columns: int
    steps_per_round: int
    rounds: int


WAITING, MOVING, COMPUTING = Case(32, 64, 1, 8), Case(32, 16_384, 1, 3), Case(128, 512, 16, 2)


def trials(method: FiniteVolume, system: AdvectedField, workers: int) -> tuple[Trial, ...]:
    """Rounds of one part and of one for each worker."""
    parts = min(workers, MOST_PARTS)
    wanted = [(WAITING, 1), (WAITING, parts), (MOVING, parts), (COMPUTING, parts)]
    return tuple(_trial(method, system, case, number, workers) for case, number in dict.fromkeys(wanted))


def _trial(method: FiniteVolume, system: AdvectedField, case: Case, parts: int, workers: int) -> Trial:
    steps = case.rounds * case.steps_per_round
    grid = {
        "rows": case.rows * parts, "columns": case.columns, "time_step": TIME_STEP, "sample_every": steps * TIME_STEP,
        "duration": 2 * steps * TIME_STEP, "parts": parts, "steps_per_round": case.steps_per_round, "run": "rounds",
    }  # fmt: skip
    split = type(method).model_validate(method.document() | grid)
    tasks, _ = split.plan(system, 0, 0)
    before = tuple(task for task in tasks if task.stage == "start")
    timed = tuple(task for task in tasks if task.stage == "advance" and task.parameters["begin"] < steps)
    return Trial(before, timed, load(split.problem, workers, parts, case.steps_per_round))
