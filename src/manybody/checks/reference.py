"""Reference: measured values agree with published ones within their combined standard errors."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from manybody.core.catalog import suggest
from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.spec import refuse
from manybody.core.study import Point
from manybody.core.task import Task

SHIPPED = files("manybody.checks") / "references"


class Reference(CheckSpec):
    """Every measured number that a table of published values has, at every point, in combined standard errors.

    A table is a CSV file: lines that start with `#` name the source; columns are paths of the study (where the
    value holds), measures, and ``MEASURE error``. A comparison whose own error is more than `max_error_ratio`
    times the published one would pass too easily: it is undecided.
    """

    summary: ClassVar[str] = "measured values agree with a published table within their combined standard errors"
    kind: ClassVar[CheckKind] = "reference"

    name: Literal["reference"] = "reference"
    table: str = Field("nist-lennard-jones", description="a table that is shipped, or the path of a CSV file")
    sigma: float = Field(3.0, gt=0, description="combined standard errors allowed")
    max_error_ratio: float = Field(5.0, gt=0, description="largest own error, in published errors, at which a comparison decides")

    @field_validator("table")
    @classmethod
    def _exists(cls, table: str) -> str:
        read_table(table)
        return table

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each point and measure."""
        table = read_table(self.table)
        named = [measure.name for measure in evidence.plan.study.measures if measure.name in table.measures]
        return [self._finding(evidence, table, point, measure) for point in evidence.plan.points for measure in named]

    def _finding(self, evidence: Evidence, table: Table, point: Point, measure: str) -> Finding:
        ours = evidence.estimate(point, measure)
        row = table.row(point)
        common = {"point": point.label, "measure": measure, "ours": ours.value, "error": ours.error, "point index": point.index}
        name = f"{measure} at {point.label}"
        tolerance_from = f"{self.sigma:g} combined standard errors, ours from blocking"
        if row is None:
            remedy = f"no published value at this point in {self.table}"
            return Finding(
                name=name,
                kind="reference",
                claim=f"{measure} agrees with the published value: {remedy}",
                value=None,
                tolerance=self.sigma,
                tolerance_from=tolerance_from,
                source=table.source,
                verdict=Verdict.UNDECIDED,
                evidence=common,
            )
        published, published_error = row[measure], row[f"{measure} error"]
        score = (ours.value - published) / math.hypot(ours.error, published_error)
        verdict = judge(score, self.sigma)
        if verdict is Verdict.HOLDS and ours.error > self.max_error_ratio * published_error:
            verdict = Verdict.UNDECIDED
            tolerance_from += f"; too coarse to decide: our error is over {self.max_error_ratio:g} times the published one"
        values = f"published {published:g} +- {published_error:g}, ours {ours.value:.5g} +- {ours.error:.1g}"
        return Finding(
            name=name,
            kind="reference",
            claim=f"{measure} agrees with the published value: {values}",
            value=score if math.isfinite(score) else None,
            tolerance=self.sigma,
            tolerance_from=tolerance_from,
            source=table.source,
            verdict=verdict,
            evidence=common
            | {path: row[path] for path in table.conditions}
            | {"reference": published, "reference_error": published_error},
        )


@dataclass(frozen=True)
class Table:
    """Published values: where they hold, what they are, and who published them."""

    source: str
    conditions: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[dict[str, float], ...]

    def row(self, point: Point) -> dict[str, float] | None:
        """The row whose conditions are those of a point, or None."""
        for row in self.rows:
            if all(math.isclose(row[path], _field(point, path), rel_tol=1e-9) for path in self.conditions):
                return row
        return None


def _field(point: Point, path: str) -> float:
    part, field = path.split(".")
    value = getattr(point.system if part == "system" else point.method, field, math.nan)
    return float(value)


def read_table(name: str) -> Table:
    """Read a shipped table by name, or a CSV file by path; what cannot be read is refused with the remedy."""
    shipped = sorted(entry.name.removesuffix(".csv") for entry in SHIPPED.iterdir() if entry.name.endswith(".csv"))
    place = SHIPPED / f"{name}.csv" if name in shipped else Path(name)
    if not place.is_file():
        refuse("table", f"one of {', '.join(shipped)}, or the path of a CSV file", f"`{name}`", suggest(name, shipped))
    lines = place.read_text(encoding="utf-8").splitlines()
    source = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    reader = csv.DictReader(line for line in lines if line and not line.startswith("#"))
    columns = reader.fieldnames or ()
    conditions = tuple(column for column in columns if "." in column)
    measures = tuple(column for column in columns if f"{column} error" in columns)
    if not source or not conditions or not measures:
        expected = "comment lines with the source, and columns such as `system.density`, `pressure` and `pressure error`"
        refuse("table", expected, f"columns {', '.join(columns) or 'none'} in {name}", "Add what is missing.")
    try:
        rows = tuple({column: float(row[column]) for column in columns} for row in reader)
    except (TypeError, ValueError) as error:
        refuse("table", "a number in every cell", f"{error} in {name}", "Mend that line.")
    return Table(source, conditions, measures, rows)
