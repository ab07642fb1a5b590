"""Small split fields whose rounds tell what a network costs: most of it waiting, moving or computing. Torch-free.

Disks and memory are slower for more than fits into their caches, so large slabs are tried with larger ones.
"""

from __future__ import annotations

import math
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


WAITING = Case(32, 64, 1, 8)
# For slabs of up to so many bytes: rounds that mostly move, and rounds that mostly compute.
BY_SIZE: tuple[tuple[float, Case, Case], ...] = (
    (1e6, Case(32, 4096, 1, 3), Case(128, 512, 16, 2)),
    (8e6, Case(32, 16_384, 1, 3), Case(32, 16_384, 4, 2)),
    (math.inf, Case(32, 65_536, 1, 2), Case(32, 65_536, 4, 1)),
)


def trials(method: FiniteVolume, system: AdvectedField, workers: int) -> tuple[Trial, ...]:
    """Rounds of one part and of one for each worker."""
    parts = min(workers, MOST_PARTS)
    slab_bytes = method.rows / method.parts * method.columns * method.cell_bytes
    moving, computing = next((moving, computing) for limit, moving, computing in BY_SIZE if slab_bytes <= limit)
    wanted = [(WAITING, 1), (WAITING, parts), (moving, parts), (computing, parts)]
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
