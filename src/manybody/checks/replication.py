"""Replication: somebody else computes some of the tasks again, and gets the same bits."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.random import Key
from manybody.core.study import Plan
from manybody.core.task import Task


class Replication(CheckSpec):
    """A few tasks, drawn by the study's seed, are computed once more by another worker.

    A task starts from a stored state and is pure, so on one kind of machine an honest replica agrees to the bit.
    """

    summary: ClassVar[str] = "tasks drawn at random, computed again by another worker, give the same bits"
    kind: ClassVar[CheckKind] = "replication"

    name: Literal["replication"] = "replication"
    count: int = Field(1, ge=1, description="how many of the study's tasks are computed twice")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """Replicas of the drawn tasks. Raises `InputError` where a task's result is not the same on every honest node."""
        _refuse_secrets(plan)
        originals = [task for run in plan.realisations for task in run.tasks]
        key = Key.from_seed(plan.study.seed, plan.study.digest, "replication")
        drawn = key.generator().choice(len(originals), size=min(self.count, len(originals)), replace=False)
        return tuple(originals[index].replicated(1) for index in sorted(drawn))

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding: how many replicas differ, or were made by the worker that made the original."""
        rows = []
        for replica in tasks:
            original = replica.replicated(0)
            rows.append(
                {
                    "task": original.digest,
                    "stage": original.stage,
                    "workers": [evidence.computed_by(original), evidence.computed_by(replica)],
                    "results": [evidence.result_digest(original), evidence.result_digest(replica)],
                }
            )
        differ = sum(row["results"][0] != row["results"][1] for row in rows)
        alone = sum(row["workers"][0] == row["workers"][1] for row in rows)
        total = sum(len(run.tasks) for run in evidence.plan.realisations)
        drawn = f"{len(rows)} of {total} tasks, drawn at random"
        return [
            Finding(
                name="replication on another worker",
                kind="replication",
                claim=f"{drawn}, computed again by another worker: {differ} differ in any bit",
                value=float(differ + alone),
                tolerance=0.0,
                tolerance_from="a task is pure and starts from a stored state: equal to the bit on one kind of machine",
                verdict=judge(float(differ + alone), 0.0),
                evidence={"replicas": rows, "chance that one wrong task escapes": 1 - len(rows) / total},
            )
        ]


def _refuse_secrets(plan: Plan) -> None:
    """Refuse tasks into which a secret of their node enters: a replica would differ though both nodes are honest."""
    for run in plan.realisations:
        method = run.point.method
        for task in run.tasks:
            if task.method == method.name and not method.repeatable(task.stage):
                came = f"`{task.stage}` of {method.name} at {run.point.label}, into which a secret of the node enters"
                remedy = "Leave `replication` out of the study."
                raise InputError(Problem("check `replication`", "tasks that give equal bits on all honest nodes", came, remedy))
