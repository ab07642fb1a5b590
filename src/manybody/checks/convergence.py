"""Convergence: a run with half the time step converges at the method's order."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Realisation
from manybody.core.task import Task


class ConvergenceOrder(CheckSpec):
    """From the end of the first run of every point, twins at the study's resolution and at half of it.

    The observed order is log2(error / error at half). It is compared with the order that the method claims.
    """

    summary: ClassVar[str] = "at half the time step, the error falls by the power that the method claims"
    kind: ClassVar[CheckKind] = "convergence"

    name: Literal["convergence"] = "convergence"
    tolerance: float = Field(0.25, gt=0, lt=0.5, description="how far the observed order may be from the claimed one")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """A coarse and a fine twin for each point."""
        return tuple(
            twin for run in _first_runs(plan) for twin in (run.point.method.twin(run, 1.0), run.point.method.twin(run, 0.5))
        )

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding: the mean order over the points."""
        convergence = evidence.plan.study.method.convergence
        if convergence is None:
            return []
        orders: dict[str, float] = {}
        for run, coarse, fine in zip(_first_runs(evidence.plan), tasks[::2], tasks[1::2], strict=True):
            pair = [float(evidence.output(task).document[convergence.quantity]) for task in (coarse, fine)]
            orders[run.point.label] = math.log2(pair[0] / pair[1]) if min(pair) > 0 else math.nan
        mean = float(np.mean(list(orders.values())))
        error = float(np.std(list(orders.values()), ddof=1)) / math.sqrt(len(orders)) if len(orders) > 1 else 0.0
        value = mean - convergence.order
        verdict = judge(value, self.tolerance)
        if verdict is Verdict.HOLDS and 3 * error > self.tolerance:
            verdict = Verdict.UNDECIDED
        return [
            Finding(
                name=f"order in {convergence.parameter.replace('_', ' ')}",
                kind="convergence",
                claim=f"{convergence.claim}; observed order {mean:.2f}, claimed {convergence.order:g}",
                value=value if math.isfinite(value) else None,
                tolerance=self.tolerance,
                tolerance_from="orders are whole numbers: a quarter tells the claimed one from its neighbours",
                verdict=verdict,
                evidence={
                    "orders": {label: order if math.isfinite(order) else None for label, order in orders.items()},
                    "error": error,
                },
            )
        ]


def _first_runs(plan: Plan) -> list[Realisation]:
    return [run for run in plan.realisations if run.repeat == 0 and run.point.method.convergence is not None]
