"""Tasks of at least 5 s a second on two embedded workers, and on one: independent fields, in turn.

Each field fits into a core's cache, so that the two workers share nothing but the machine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.measure import Result, compare
from manybody.core.task import Task
from manybody.engines.fields.parts import Moment
from manybody.engines.fields.spec import AdvectedField, FiniteVolume, Wave
from manybody.network.local import Embedded

TARGET, SECONDS, TASKS, WORKERS = 1.8, 5.0, 4, 2
PACED_STEPS = 500  # from which the number of steps of a task is found
SPARE = 1.2  # a task is made longer than it has to be: it must not fall short when the machine is quicker later

SYSTEM = AdvectedField(velocity_x=1.0, diffusivity=1e-6, waves=(Wave(cycles_x=1, cycles_y=1),))


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="manybody-bench-") as folder:
        root = Path(folder) / "objects"
        with Embedded(root, workers=1) as one, Embedded(root, workers=WORKERS) as two:
            seconds(one, [64])
            pace = min(seconds(one, [PACED_STEPS]) for _ in range(3)) / PACED_STEPS
            steps = round(SPARE * SECONDS / pace)
            version = "one worker of the same backend"
            return [
                compare(
                    f"scaling, tasks of {SPARE * SECONDS:g} s on {WORKERS} workers and on 1", "tasks/s", TARGET,
                    lambda: throughput(two, steps), lambda: throughput(one, steps), version, 1,
                )
            ]  # fmt: skip


def throughput(backend: Embedded, steps: int) -> float:
    """Tasks a second; all workers have started before."""
    seconds(backend, [64] * WORKERS)
    return TASKS / seconds(backend, [steps] * TASKS)


def seconds(backend: Embedded, steps: list[int]) -> float:
    """How long it takes until a task for each number of steps is finished."""
    begin = time.perf_counter()
    for number, each in enumerate(steps):
        backend.submit(f"task-{number}", field(each, number), {})
    for event in backend.events():
        if event.kind in ("failed", "lost"):
            raise RuntimeError(f"{event.kind}: {event.reason}")
    return time.perf_counter() - begin


def field(steps: int, seed: int) -> Task:
    """A field of 256 x 256 cells on its own."""
    moment = Moment(rows=256, columns=256, time_step=1e-6, precision="float64", step=steps)
    return Task(
        method="finite-volume", stage="converge", version=FiniteVolume.version, system=SYSTEM.document(),
        parameters=moment.document(), seed=seed,
    )  # fmt: skip
