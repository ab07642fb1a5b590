"""Exact: measured values agree with what theory says in closed form."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.protocols import CheckSpec, ClosedForm, Evidence, MeasureSpec
from manybody.core.study import Point
from manybody.core.task import Task


class Exact(CheckSpec):
    """Every measured number whose measure knows its closed form, at every point, within the tolerance that comes with it.

    For values without sampling noise: the tolerance is all that may lie between the two.
    """

    summary: ClassVar[str] = "measured values agree with theory, where it gives them in closed form"
    kind: ClassVar[CheckKind] = "reference"

    name: Literal["exact"] = "exact"

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each point and measure."""
        return [
            _finding(evidence, point, measure, known)
            for point in evidence.plan.points
            for measure in evidence.plan.study.measures
            if (known := measure.exact(point)) is not None
        ]


def _finding(evidence: Evidence, point: Point, measure: MeasureSpec, known: ClosedForm) -> Finding:
    ours = float(evidence.estimate(point, measure.name).value)
    deviation = ours - known.value
    return Finding(
        name=f"{measure.name} at {point.label}",
        kind="reference",
        claim=f"{measure.name} agrees with its closed form: exact {known.value:.6g}, ours {ours:.6g}",
        value=deviation if math.isfinite(deviation) else None,
        tolerance=known.tolerance,
        tolerance_from=known.tolerance_from,
        source=known.source,
        verdict=judge(deviation, known.tolerance),
        evidence={
            "point": point.label,
            "measure": measure.name,
            "point index": point.index,
            "ours": ours if math.isfinite(ours) else None,
            "error": 0.0,
            "reference": known.value,
            "reference_error": 0.0,
        },
    )
