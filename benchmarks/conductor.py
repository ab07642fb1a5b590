"""Conductor: what a task costs beyond its own time on this machine, and tasks a second beside a pool of processes.

Ours: a run of a plan, as `manybody run` conducts it, on as many worker processes as there are cores. Each task is claimed and
finished in the ledger, the latter by a transaction that is synced; its result is encoded, digested and synced. The peer:
the same stage called through `concurrent.futures.ProcessPoolExecutor`, its result in the caller's memory; no target is set
beside it, for it keeps nothing.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.filling import KINDS, UNIT, fill, rate
from benchmarks.measure import Result, beside_limit, compare
from manybody.core.study import Plan, Point, Realisation, Study
from manybody.core.task import Task
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.store.provenance import provenance, usable_cores
from manybody.study.conduct import Conductor
from manybody.testing.methods import TestingArithmetic, installed

ROUNDS = 5
LIMIT_S = 0.005  # what a task may cost beyond its own time
STUDY = Study.model_validate(
    {
        "name": "conductor",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)


def run() -> list[Result]:
    """The cost of empty tasks beside its limit, then tasks a second beside the pool."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(installed(folder / "plugin"))
        sys.path.insert(0, str(folder / "plugin"))
        home = Home(folder / "home")
        backend = stack.enter_context(Embedded(home.objects.root))
        pool = stack.enter_context(ProcessPoolExecutor(usable_cores(), get_context("spawn")))

        def ours(tasks: list[Task]) -> int:
            return conducted(home, backend, tasks)

        def pooled(tasks: list[Task]) -> int:
            return sum(1 for _ in pool.map(fill, tasks))

        results = {
            name: compare(
                f"embedded-{name}", UNIT, 0.0, partial(rate, ours, kind), partial(rate, pooled, kind),
                f"Python {platform.python_version()}", ROUNDS,
            )
            for name, kind in KINDS.items()
            if kind.at_once  # a run has all its tasks from the start
        }  # fmt: skip
        return [*results.values(), beside_limit(results["empty-tasks"], "conductor-overhead", 1 / LIMIT_S)]


def conducted(home: Home, backend: Embedded, tasks: list[Task]) -> int:
    """Conduct a run of independent tasks; returns how many were computed. Its backend is lent, so that processes are warm."""
    point = Point(0, "tasks", STUDY.system, TestingArithmetic())
    plan = Plan(STUDY, tuple(Realisation(point, number, (task,), (task,)) for number, task in enumerate(tasks)))
    with closing(home.ledger()) as ledger:
        ledger.record_study(STUDY)
        number = ledger.begin_run(STUDY.digest, home.path / "out", "benchmark", provenance())
        ledger.add_tasks(number, plan.tasks)
        conductor = Conductor(plan, number, ledger, home.objects, backend)
        conductor.recover()
        tally = conductor.conduct(lambda *told: None)
        ledger.end_run(number, "holds", None, None)
    return tally.computed
