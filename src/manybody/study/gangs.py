"""Gangs in a study: refused before anything runs where the network cannot run them."""

from __future__ import annotations

from manybody.core import catalog
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import Backend
from manybody.core.split import RunsGangs
from manybody.core.study import Plan
from manybody.core.task import Task

REMEDY = "Run the same parts by rounds, with the same answer: `--set method.run=rounds`."


def refuse_impossible_gangs(plan: Plan, backend: Backend) -> None:
    """Raise `InputError` where a plan has gangs that no node of the backend has room for, or that it cannot run at all."""
    wanted = max((int(task.parameters["members"]) for task in plan.tasks if _is_for_gang(task)), default=0)
    if not wanted:
        return
    if not isinstance(backend, RunsGangs):
        expected = "tasks that need no fast channel between processes: nodes of a federation cannot reach each other"
        raise InputError(Problem("network", expected, f"gangs of {wanted} members", REMEDY))
    most = backend.most_members()
    if wanted > most:
        remedy = f"Use a machine with more cores, or fewer parts. {REMEDY}"
        raise InputError(Problem("network", f"gangs of at most {most}, a core of one machine each", f"{wanted} members", remedy))


def _is_for_gang(task: Task) -> bool:
    return task.stage in catalog.load("methods", task.method).gangs
