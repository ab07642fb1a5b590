"""Agreement: points of a sweep that must not matter give the same numbers."""

from __future__ import annotations

import math
from itertools import combinations
from typing import ClassVar, Literal

from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.numerics.statistics import family_threshold


class Agreement(CheckSpec):
    """Numbers are the same at all points, in pairs, within their combined errors: for sweeps that must not matter.

    The limit is set for all pairs together. A point with fewer than `least` independent samples is too coarse to tell.
    """

    summary: ClassVar[str] = "points that must not differ give the same numbers within their combined errors"
    kind: ClassVar[CheckKind] = "statistics"

    name: Literal["agreement"] = "agreement"
    measures: tuple[str, ...] = Field(min_length=1, description="the measured numbers that must be the same")
    sigma: float = Field(3.0, gt=0, description="combined standard errors allowed over all pairs together")
    least: int = Field(16, ge=2, description="independent samples that a point needs")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` where there is nothing to compare."""
        known = [measure.name for measure in plan.study.measures]
        unknown = [name for name in self.measures if name not in known]
        if len(plan.points) < 2 or unknown:
            expected = f"at least two points, and measures among {', '.join(known)}"
            came = f"{len(plan.points)} point{'s' * (len(plan.points) != 1)} and {', '.join(unknown or self.measures)}"
            raise InputError(Problem("check `agreement`", expected, came, "Sweep what must not matter, and measure these."))
        return ()

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a measure, with the worst pair as its value."""
        pairs = list(combinations(evidence.plan.points, 2))
        limit = family_threshold(self.sigma, len(pairs) * len(self.measures))
        return [self._finding(evidence, name, pairs, limit) for name in self.measures]

    def _finding(self, evidence: Evidence, name: str, pairs: list[tuple[Point, Point]], limit: float) -> Finding:
        scores = {f"{first.label}; {second.label}": _apart(evidence, name, first, second) for first, second in pairs}
        # NaN counts as worst: it must not hide behind a finite value elsewhere.
        worst = max(scores, key=lambda pair: (math.isnan(scores[pair]), abs(scores[pair])))
        value = scores[worst]
        verdict = judge(value, limit)
        tolerance_from = f"{self.sigma:g} combined standard errors over {len(pairs) * len(self.measures)} pairs together"
        fewest = min(evidence.estimate(point, name).samples_effective for point in evidence.plan.points)
        if verdict is Verdict.HOLDS and fewest < self.least:
            verdict = Verdict.UNDECIDED
            tolerance_from += f"; too coarse to decide: {fewest:.0f} independent samples at a point, of {self.least} wanted"
        return Finding(
            name=f"agreement of {name}",
            kind="statistics",
            claim=f"{name} is the same at all points, in combined standard errors (worst: {worst})",
            value=value if math.isfinite(value) else None,
            tolerance=limit,
            tolerance_from=tolerance_from,
            verdict=verdict,
            evidence={pair: score if math.isfinite(score) else None for pair, score in scores.items()},
        )


def _apart(evidence: Evidence, name: str, first: Point, second: Point) -> float:
    """The difference of two points, in combined standard errors."""
    left, right = evidence.estimate(first, name), evidence.estimate(second, name)
    return float((left.value - right.value) / math.hypot(left.error, right.error))
