"""Error bars: runs differ from one another as much as their error bars say."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.stats import chi2, norm

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Estimate, Evidence
from manybody.core.task import Task


class ErrorBars(CheckSpec):
    """Independent runs of a point scatter about their mean as chi-squared with their own blocked errors says.

    Too much scatter: the errors are too small (a correlation longer than the blocks, or runs that are stuck). Too
    little: they are too large, or the runs are not independent.
    """

    summary: ClassVar[str] = "independent runs scatter as much as their error bars say"
    kind: ClassVar[CheckKind] = "calibration"

    name: Literal["error-bars"] = "error-bars"
    sigma: float = Field(3.0, gt=0, description="standard normal equivalent of the allowed chi-squared")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a measured number, over all points."""
        findings = []
        for measure in evidence.plan.study.measures:
            estimates = [evidence.estimate(point, measure.name) for point in evidence.plan.points]
            if not estimates[0].runs:
                continue
            squares, freedom = _scatter(estimates)
            value = _normal_equivalent(squares, freedom) if freedom else None
            repeats = "" if freedom else "; it takes at least 2 repeats, and samples that differ"
            findings.append(
                Finding(
                    name=f"error bars of {measure.name}",
                    kind="calibration",
                    claim=f"runs scatter about their mean as their errors say: chi-squared {squares:.1f} of {freedom}{repeats}",
                    value=value,
                    tolerance=self.sigma,
                    tolerance_from=f"{self.sigma:g} standard deviations of a normal variable with the same probability",
                    verdict=judge(value, self.sigma) if freedom else Verdict.UNDECIDED,
                    evidence={"chi_squared": squares, "degrees_of_freedom": freedom},
                )
            )
        return findings


def _scatter(estimates: list[Estimate]) -> tuple[float, int]:
    """Chi-squared of the runs about their weighted mean, and its degrees of freedom.

    A point where a run has no error, since all its samples are equal, tells nothing.
    """
    squares, freedom = 0.0, 0
    for estimate in estimates:
        runs, errors = np.array(estimate.runs), np.array(estimate.run_errors)
        if not (errors > 0).all():
            continue
        weights = 1 / errors**2
        mean = float(runs @ weights / weights.sum())
        squares += float(np.sum((runs - mean) ** 2 * weights))
        freedom += len(runs) - 1
    return squares, freedom


def _normal_equivalent(squares: float, freedom: int) -> float:
    """The standard normal deviate with the same tail probability as a chi-squared; at most 37, where doubles underflow."""
    above, below = chi2.sf(squares, freedom), chi2.cdf(squares, freedom)
    deviate = norm.isf(above) if above < 0.5 else norm.ppf(below)
    return float(np.clip(deviate, -37.0, 37.0))
