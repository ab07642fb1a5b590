"""Extrapolation: what measured values differ by from a limiting theory vanishes in its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Evidence, MeasureSpec
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.numerics.statistics import family_threshold


class Extrapolation(CheckSpec):
    """Closed forms that hold as a swept parameter goes to 0: a straight line through the deviations ends at 0 there.

    Points that differ in `path` alone (and in the paths of `alongside`, which change with it) make one line; its end is
    compared with its own standard error. A parameter that takes one value only leaves the claim undecided.
    """

    summary: ClassVar[str] = "deviations from a limiting closed form vanish as a parameter goes to 0"
    kind: ClassVar[CheckKind] = "reference"

    name: Literal["extrapolation"] = "extrapolation"
    path: str = Field(pattern=r"^(system|method)\.\w+$", description="the swept parameter that goes to 0, `system.coupling` say")
    alongside: tuple[str, ...] = Field((), description="swept paths that change with it")
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all lines together")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each measure with a closed form, and line."""
        lines = [line for line in self._lines(evidence.plan) if len({x for x, _ in line.points}) > 1]
        claims = [
            (measure, line)
            for measure in evidence.plan.study.measures
            for line in lines
            if all(measure.exact(point) is not None for _, point in line.points)
        ]
        limit = family_threshold(self.sigma, len(claims))
        found = [self._finding(evidence, measure, line, limit) for measure, line in claims]
        return found or [self._undecided()]

    def _lines(self, plan: Plan) -> list[_Line]:
        """The points of a plan in lines, those at which nothing else differs together."""
        lines: dict[str, _Line] = {}
        for point in plan.points:
            place = plan.study.sweep[point.index]
            others = [path for path in place if path != self.path and path not in self.alongside]
            label = ", ".join(f"{path.split('.')[1]} {_value(point, path)}" for path in others)
            x = _value(point, self.path)
            line = lines.setdefault(label, _Line(label, []))
            if isinstance(x, int | float):
                line.points.append((float(x), point))
        return list(lines.values())

    def _finding(self, evidence: Evidence, measure: MeasureSpec, line: _Line, limit: float) -> Finding:
        rows = []
        for x, point in line.points:
            known, ours = measure.exact(point), evidence.estimate(point, measure.name)
            assert known is not None
            rows.append((x, float(ours.value) - known.value, float(ours.error)))
        end, error = intercept(*(np.array(column) for column in zip(*rows, strict=True)))
        score = end / error if error > 0 else math.nan
        place = f" at {line.label}" if line.label else ""
        return Finding(
            name=f"{measure.name}{place} as {self.path.split('.')[1]} goes to 0",
            kind="reference",
            claim=f"the deviation of {measure.name} from its closed form goes to 0: a line ends at {end:.2g} +- {error:.1g}",
            value=score if math.isfinite(score) else None,
            tolerance=limit,
            tolerance_from=f"standard errors; {self.sigma:g} over all extrapolations together",
            verdict=judge(score if math.isfinite(score) else None, limit),
            evidence={"deviations": [{"at": x, "deviation": deviation, "standard error": sd} for x, deviation, sd in rows]},
        )

    def _undecided(self) -> Finding:
        return Finding(
            name=f"extrapolation in {self.path}",
            kind="reference",
            claim=f"deviations from closed forms go to 0 with {self.path}: no line of points at which it alone varies",
            value=None,
            tolerance=self.sigma,
            tolerance_from=f"{self.sigma:g} standard errors",
            verdict=Verdict.UNDECIDED,
        )


@dataclass(frozen=True)
class _Line:
    """Points at which only the parameter differs, with its values."""

    label: str
    points: list[tuple[float, Point]]


def intercept(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Where the straight line of weighted least squares meets x = 0, and its standard error; all [points], errors > 0."""
    design = np.stack([np.ones_like(x), x], axis=1) / error[:, None]
    covariance = np.linalg.inv(design.T @ design)
    return float(covariance[0] @ design.T @ (y / error)), math.sqrt(float(covariance[0, 0]))


def _value(point: Point, path: str) -> Any:
    part, field = path.split(".")
    return getattr(getattr(point, part), field, None)
