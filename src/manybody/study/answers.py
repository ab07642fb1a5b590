"""The answers of a study: every measured value at every point, beside its reference where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manybody.core.certificate import Certificate, Finding
from manybody.core.protocols import Estimate, Evidence, MeasureSpec
from manybody.core.study import Plan, Point


@dataclass(frozen=True)
class Comparison:
    """A measured value and its reference, with standard errors; `tolerance` in combined standard errors."""

    ours: float
    error: float
    reference: float
    reference_error: float
    tolerance: float | None
    source: str

    @property
    def residual(self) -> float:
        """Ours less the reference, in combined standard errors; NaN where neither has an error."""
        combined = math.hypot(self.error, self.reference_error)
        return (self.ours - self.reference) / combined if combined > 0 else math.nan


@dataclass(frozen=True)
class Answer:
    """One measured value (or curve) at one point."""

    point: Point
    measure: MeasureSpec
    estimate: Estimate
    comparison: Comparison | None

    @property
    def is_curve(self) -> bool:
        """Whether it is a curve over `estimate.axis` rather than a number."""
        return self.estimate.axis is not None


def answers(plan: Plan, evidence: Evidence, certificate: Certificate) -> list[Answer]:
    """Every measure at every point, measures outermost, in the order of the study."""
    references = {key: found for finding in certificate.checks for key, found in _comparison(finding)}
    return [
        Answer(point, measure, evidence.estimate(point, measure.name), references.get((point.label, measure.name)))
        for measure in plan.study.measures
        for point in plan.points
    ]


def _comparison(finding: Finding) -> list[tuple[tuple[str, str], Comparison]]:
    """What a finding compares, by point and measure; nothing where it had no number to compare."""
    ours, error, reference, reference_error = (
        _number(finding.evidence, name) for name in ("ours", "error", "reference", "reference_error")
    )
    if finding.kind != "reference" or ours is None or error is None or reference is None or reference_error is None:
        return []
    key = (str(finding.evidence.get("point")), str(finding.evidence.get("measure")))
    return [(key, Comparison(ours, error, reference, reference_error, finding.tolerance, finding.source))]


def _number(evidence: Mapping[str, Any], name: str) -> float | None:
    value = evidence.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True)
class SweepAxis:
    """How the points of a sweep lie on a figure: along the path that takes most values, in series by the others.

    `ticks` are the labels of the points where no swept path is numeric (`values` are then 0, 1, ..).
    """

    label: str
    values: tuple[float, ...]
    series: tuple[str, ...]
    ticks: tuple[str, ...] = ()


def sweep_axis(plan: Plan) -> SweepAxis:
    """The axis of a plan's points, in reduced units."""
    points = plan.points
    paths = list(dict.fromkeys(path for place in plan.study.sweep for path in place))
    columns = {path: [_field(point, path) for point in points] for path in paths}
    varied = {path: column for path, column in columns.items() if len({str(value) for value in column}) > 1}
    numeric = {path: column for path, column in varied.items() if all(type(value) in (int, float) for value in column)}
    if not numeric:
        labels = tuple(point.label for point in points)
        return SweepAxis("", tuple(float(index) for index in range(len(points))), ("",) * len(points), labels)
    along = max(numeric, key=lambda path: len(set(numeric[path])))  # the first of equals
    others = [path for path in varied if path != along]
    series = tuple(", ".join(f"{_name(path)} {_text(_field(point, path))}" for path in others) for point in points)
    return SweepAxis(f"{_name(along)} (reduced units)", tuple(float(value) for value in columns[along]), series)


def _field(point: Point, path: str) -> Any:
    part, field = path.split(".")
    return getattr(getattr(point, part), field)


def _name(path: str) -> str:
    return path.split(".")[1].replace("_", " ")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
