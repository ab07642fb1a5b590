"""Extrapolation: what measured values differ by from a limiting theory vanishes in its limit."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, ClosedForm, Evidence, MeasureSpec
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.numerics.statistics import family_threshold


class Extrapolation(CheckSpec):
    """Closed forms that hold as a swept parameter goes to 0: a straight line through the deviations ends at 0 there.

    Points that differ in `path` alone (and in the paths of `alongside`, which change with it) make one line; its end is
    compared with its own standard error. What the method itself is known to be off by is taken off before. A parameter that
    takes one value only leaves the claim undecided.
    """

    summary: ClassVar[str] = "deviations from a limiting closed form vanish as a parameter goes to 0"
    kind: ClassVar[CheckKind] = "reference"

    name: Literal["extrapolation"] = "extrapolation"
    path: str = Field(
        pattern=r"^(system|method)\.\w+$", examples=["method.time_step"], description="the swept parameter that goes to 0"
    )
    alongside: tuple[str, ...] = Field((), description="swept paths that change with it")
    measures: tuple[str, ...] = Field((), description="which deviations go as a line; all with a closed form by default")
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all lines together")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each measure with a closed form, and line."""
        claims = [
            (measure, label, known)
            for measure in evidence.plan.study.measures
            if not self.measures or measure.name in self.measures
            for label, points in self._lines(evidence.plan).items()
            if (known := _known(measure, points)) is not None
        ]
        limit = family_threshold(self.sigma, len(claims))
        return [self._finding(evidence, *claim, limit) for claim in claims] or [self._undecided()]

    def _lines(self, plan: Plan) -> dict[str, list[tuple[float, Point]]]:
        """Points at which nothing but the parameter differs, with its values, under what they have in common."""
        lines: dict[str, list[tuple[float, Point]]] = {}
        for point in plan.points:
            others = [path for path in plan.study.sweep[point.index] if path != self.path and path not in self.alongside]
            label = ", ".join(f"{path.split('.')[1]} {_value(point, path)}" for path in others)
            x = _value(point, self.path)
            if isinstance(x, int | float):
                lines.setdefault(label, []).append((float(x), point))
        return {label: points for label, points in lines.items() if len({x for x, _ in points}) > 1}

    def _finding(
        self, evidence: Evidence, measure: MeasureSpec, label: str, known: list[tuple[float, Point, ClosedForm]], limit: float
    ) -> Finding:
        rows = []
        for x, point, form in known:
            ours = evidence.estimate(point, measure.name)
            rows.append((x, float(ours.value) - form.value - form.truncation, float(ours.error)))
        end, error = intercept(*(np.array(column) for column in zip(*rows, strict=True)))
        score = end / error
        place = f" at {label}" if label else ""
        return Finding(
            name=f"{measure.name}{place} as {self.path.split('.')[1]} goes to 0",
            kind="reference",
            claim=f"the deviation of {measure.name} from its closed form goes to 0: a line ends at {end:.2g} +- {error:.1g}",
            value=score if math.isfinite(score) else None,
            tolerance=limit,
            tolerance_from=f"standard errors; {self.sigma:g} over all extrapolations together",
            source=known[0][2].source,
            verdict=judge(score, limit),
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


def _known(measure: MeasureSpec, points: list[tuple[float, Point]]) -> list[tuple[float, Point, ClosedForm]] | None:
    """The points of a line with their closed forms; None where one of them has none."""
    found = [(x, point, form) for x, point in points if (form := measure.exact(point)) is not None]
    return found if len(found) == len(points) else None


def intercept(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Where the straight line of weighted least squares meets x = 0, and its standard error; all [points].

    NaN for values without an error: they leave nothing to judge by.
    """
    if not (error > 0).all():
        return math.nan, math.nan
    design = np.stack([np.ones_like(x), x], axis=1) / error[:, None]
    covariance = np.linalg.inv(design.T @ design)
    return float(covariance[0] @ design.T @ (y / error)), math.sqrt(float(covariance[0, 0]))


def _value(point: Point, path: str) -> Any:
    part, field = path.split(".")
    return getattr(getattr(point, part), field, None)
