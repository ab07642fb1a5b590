"""Curves: points of a sweep that must not matter give the same curves."""

from __future__ import annotations

import math
from itertools import combinations
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.numerics.agreement import compare_curves
from manybody.numerics.statistics import family_threshold

Pair = tuple[Point, Point]


class SameCurves(CheckSpec):
    """A measured curve is the same at all points, in pairs, within the errors of both: for sweeps that must not matter.

    Samples must be independent of each other; the values of a curve need not be. The mean squared difference over its
    variance is compared with what chance gives (`numerics.agreement`), over the bins that both points have. And both must
    have nearly all that either has, so that nothing agrees by having been left out.
    """

    summary: ClassVar[str] = "points that must not differ give the same curves, bins taken together"
    kind: ClassVar[CheckKind] = "statistics"

    name: Literal["same-curves"] = "same-curves"
    measures: tuple[str, ...] = Field(min_length=1, description="the measured curves that must be the same")
    sigma: float = Field(3.0, gt=0, description="standard deviations allowed over all pairs together")
    missing: float = Field(0.1, ge=0, lt=1, description="share of the bins that one point may lack and another have")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` where there is nothing to compare."""
        known = [measure.name for measure in plan.study.measures]
        unknown = [name for name in self.measures if name not in known]
        if len(plan.points) < 2 or unknown:
            expected = f"at least two points, and measures among {', '.join(known)}"
            came = f"{len(plan.points)} of them and {', '.join(unknown or self.measures)}"
            raise InputError(Problem("check `same-curves`", expected, came, "Sweep what must not matter, and measure these."))
        return ()

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """Two findings for each curve and pair of points: whether they agree, and whether both have it."""
        pairs = list(combinations(evidence.plan.points, 2))
        limit = family_threshold(self.sigma, len(pairs) * len(self.measures))
        return [
            finding
            for name in self.measures
            for pair in pairs
            for finding in (self._same(evidence, name, pair, limit), self._covered(evidence, name, pair))
        ]

    def _same(self, evidence: Evidence, name: str, pair: Pair, limit: float) -> Finding:
        first, second = (
            [evidence.samples(run, name).values for run in evidence.plan.realisations if run.point.index == point.index]
            for point in pair
        )
        found = compare_curves(first, second)
        told = {"bins": found.bins, "effective_bins": found.effective}
        if math.isfinite(found.deviate):
            told |= {"mean_square": found.mean_square, "deviate": found.deviate}
        return self._finding(
            f"{name}: {_both(pair)}",
            f"{name} is the same at {_both(pair)}: over {found.bins} bins the mean squared difference is "
            f"{found.mean_square:.2f} of its variance, told as a standard normal deviate",
            found.excess,
            limit,
            f"{self.sigma:g} standard deviations over all pairs; the bins are worth {found.effective:.1f} independent ones",
            told,
        )

    def _covered(self, evidence: Evidence, name: str, pair: Pair) -> Finding:
        has = [np.isfinite(np.asarray(evidence.estimate(point, name).value)) for point in pair]
        either = int((has[0] | has[1]).sum())
        share = int((has[0] ^ has[1]).sum()) / either if either else math.nan
        return self._finding(
            f"{name}: {_both(pair)}, coverage",
            f"what {name} has at one of {_both(pair)} it has at the other: share of the bins that it does not",
            share,
            self.missing,
            "bins at the rim, which chance gives to one or the other",
            {"bins": either},
        )

    def _finding(
        self, name: str, claim: str, value: float, tolerance: float, tolerance_from: str, evidence: dict[str, float]
    ) -> Finding:
        return Finding(
            name=name,
            kind=self.kind,
            claim=claim,
            value=value if math.isfinite(value) else None,
            tolerance=tolerance,
            tolerance_from=tolerance_from,
            verdict=judge(value, tolerance) if math.isfinite(value) else Verdict.FAILS,
            evidence=evidence,
        )


def _both(pair: Pair) -> str:
    return f"{pair[0].label} and {pair[1].label}"
