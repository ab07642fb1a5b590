"""Agreement: the points of a study, which ask for one thing in different ways, get one answer."""

from __future__ import annotations

import math
from itertools import combinations
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Point
from manybody.core.task import Task
from manybody.numerics.agreement import compare_curves
from manybody.numerics.statistics import family_threshold

Pair = tuple[Point, Point]


class MethodsAgree(CheckSpec):
    """Every measured number and curve is the same at all points, within the errors of both: for sweeps over methods.

    Numbers are compared in combined standard errors. Of a curve, whose values are not independent, the mean squared
    difference over its variance is compared with what chance gives (`numerics.agreement`), over the bins that both have;
    and both must have nearly all that either has, so that nothing agrees by having been left out.
    """

    summary: ClassVar[str] = "different methods give the same values and curves within their combined errors"
    kind: ClassVar[CheckKind] = "reference"

    name: Literal["agreement"] = "agreement"
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all comparisons together")
    missing: float = Field(0.1, ge=0, lt=1, description="share of a curve's bins that one point may lack and another have")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each measure and pair of points, and one more for what a curve covers."""
        measures = [measure.name for measure in evidence.plan.study.measures]
        pairs = list(combinations(evidence.plan.points, 2))
        limit = family_threshold(self.sigma, len(measures) * len(pairs))
        found: list[Finding] = []
        for name in measures:
            for pair in pairs:
                if evidence.estimate(pair[0], name).axis is None:
                    found.append(self._numbers(evidence, name, pair, limit))
                else:
                    found += [self._curves(evidence, name, pair, limit), self._coverage(evidence, name, pair)]
        return found

    def _numbers(self, evidence: Evidence, name: str, pair: Pair, limit: float) -> Finding:
        ours, other = (evidence.estimate(point, name) for point in pair)
        score = (ours.value - other.value) / math.hypot(ours.error, other.error)
        values = f"{ours.value:.5g} +- {ours.error:.1g} and {other.value:.5g} +- {other.error:.1g}"
        return self._finding(
            f"{name}: {_both(pair)}", f"{name} is the same at {_both(pair)}: {values}", score, limit,
            f"{self.sigma:g} combined standard errors over all comparisons together",
            {
                "point": pair[0].label, "measure": name, "point index": pair[0].index,
                "ours": ours.value, "error": ours.error, "reference": other.value, "reference_error": other.error,
            },
        )  # fmt: skip

    def _curves(self, evidence: Evidence, name: str, pair: Pair, limit: float) -> Finding:
        first, second = (
            [evidence.samples(run, name).values for run in evidence.plan.realisations if run.point.index == point.index]
            for point in pair
        )
        found = compare_curves(first, second)
        claim = (
            f"{name} is the same at {_both(pair)}: over {found.bins} bins the mean squared difference is "
            f"{found.mean_square:.2f} of its variance, as a standard normal deviate"
        )
        return self._finding(
            f"{name}: {_both(pair)}", claim, max(found.deviate, 0.0) if math.isfinite(found.deviate) else math.nan, limit,
            f"{self.sigma:g} standard deviations over all comparisons together; the bins are worth "
            f"{found.effective:.1f} independent ones",
            {"mean_square": _finite(found.mean_square), "bins": found.bins, "effective_bins": found.effective,
             "deviate": _finite(found.deviate)},
        )  # fmt: skip

    def _coverage(self, evidence: Evidence, name: str, pair: Pair) -> Finding:
        has = [np.isfinite(np.asarray(evidence.estimate(point, name).value)) for point in pair]
        either = int((has[0] | has[1]).sum())
        share = int((has[0] ^ has[1]).sum()) / either if either else math.nan
        return self._finding(
            f"{name}: {_both(pair)}, coverage", f"what {name} tells at one of {_both(pair)} it tells at the other: share of bins it does not",
            share, self.missing, "bins at the rim of what is told, which chance gives to one or the other", {"bins": either},
        )  # fmt: skip

    def _finding(
        self, name: str, claim: str, value: float, tolerance: float, tolerance_from: str, evidence: dict[str, object]
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
