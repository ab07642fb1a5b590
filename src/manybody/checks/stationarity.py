"""Stationarity: no trend is left in what was measured."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Point
from manybody.core.task import Task
from manybody.numerics.statistics import block_error, family_threshold, trend


class Stationarity(CheckSpec):
    """A line through each measured series, common to all runs of a point, has no slope beyond its error."""

    summary: ClassVar[str] = "no trend is left in the measured series: the system had forgotten its start"
    kind: ClassVar[CheckKind] = "statistics"

    name: Literal["stationarity"] = "stationarity"
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all series together")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a measured number, with the worst point as its value."""
        plan = evidence.plan
        numbers = [m for m in plan.study.measures if evidence.samples(plan.realisations[0], m.name).values.ndim == 1]
        tests = len(numbers) * len(plan.points)
        limit = family_threshold(self.sigma, tests)
        findings = []
        for measure in numbers:
            trends = {point.label: _trend(evidence, point, measure.name) for point in plan.points}
            worst = max(trends, key=lambda label: abs(trends[label]))
            findings.append(
                Finding(
                    name=f"stationarity of {measure.name}",
                    kind="statistics",
                    claim=f"no linear trend in {measure.symbol} beyond its error, in standard errors (worst: {worst})",
                    value=trends[worst],
                    tolerance=limit,
                    tolerance_from=f"{self.sigma:g} standard errors over {tests} series together",
                    verdict=judge(trends[worst], limit),
                    evidence={"trends": trends},
                )
            )
        return findings


def _trend(evidence: Evidence, point: Point, measure: str) -> float:
    """The common trend of a measured number at a point, in standard errors; reweighted samples keep their weights."""
    mean = evidence.estimate(point, measure).value
    runs = [evidence.samples(run, measure) for run in evidence.plan.realisations if run.point.index == point.index]
    rests = [run.weights * (run.values - mean) / run.weights.mean() for run in runs]
    return trend(rests, block_error(rests).inefficiency)
