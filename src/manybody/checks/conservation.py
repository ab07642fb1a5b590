"""Conservation: what the method says it keeps constant, it keeps constant."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Conserved, Evidence
from manybody.core.study import Point
from manybody.core.task import Task
from manybody.numerics.statistics import linear_drift


class Conservation(CheckSpec):
    """Every declared conserved quantity, at every point: its drift, or its largest deviation, against the tolerance."""

    summary: ClassVar[str] = "energy (less heat from the thermostat) does not drift; momentum stays what it was"
    kind: ClassVar[CheckKind] = "invariant"

    name: Literal["conservation"] = "conservation"

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a conserved quantity, with the worst point as its value."""
        by_series: dict[str, list[tuple[Point, Conserved, float, float]]] = {}
        for point in evidence.plan.points:
            for claim in point.method.conserves(point.system):
                by_series.setdefault(claim.series, []).append((point, claim, *_deviation(evidence, point, claim)))
        return [_finding(series, rows) for series, rows in by_series.items()]


def _deviation(evidence: Evidence, point: Point, claim: Conserved) -> tuple[float, float]:
    """The deviation of a quantity at a point, and its standard error.

    A drift is the mean slope over the measured tasks, so it comes with the error of that mean.
    """
    outputs = [
        evidence.output(task) for run in evidence.plan.realisations if run.point.index == point.index for task in run.measured
    ]
    if not claim.drift:
        return max(float(np.max(np.abs(out.arrays[claim.series] - out.arrays[claim.series][0]))) for out in outputs), 0.0
    slopes = [linear_drift(out.arrays["time"], out.arrays[claim.series]) for out in outputs]
    error = float(np.std(slopes, ddof=1)) / math.sqrt(len(slopes)) if len(slopes) > 1 else 0.0
    return float(np.mean(slopes)), error


def _finding(series: str, rows: list[tuple[Point, Conserved, float, float]]) -> Finding:
    # NaN counts as worst: it must not hide behind a finite value elsewhere.
    point, claim, value, _ = max(rows, key=lambda row: (math.isnan(row[2]), abs(row[2]) / row[1].tolerance))
    verdict = judge(value, claim.tolerance)
    if verdict is Verdict.HOLDS and any(row[3] > row[1].tolerance for row in rows):
        verdict = Verdict.UNDECIDED
    return Finding(
        name=f"conservation of {series.replace('_', ' ')}",
        kind="invariant",
        claim=f"{claim.claim} (worst: {point.label})",
        value=value if math.isfinite(value) else None,
        tolerance=claim.tolerance,
        tolerance_from=claim.tolerance_from,
        verdict=verdict,
        evidence={
            "points": {
                row[0].label: {"value": _finite(row[2]), "error": _finite(row[3]), "tolerance": row[1].tolerance} for row in rows
            }
        },
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
