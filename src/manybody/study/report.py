"""The report: one HTML file that opens offline, the answer first, with everything that it takes to believe it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manybody.core.certificate import Certificate, Finding, Verdict
from manybody.core.protocols import Evidence
from manybody.core.spec import NamedSpec
from manybody.core.study import Plan, Point, Study
from manybody.core.units import Dimension, UnitSystem, show_quantity
from manybody.study.answers import Answer, answers
from manybody.study.export import CONFIGURATIONS, RESULTS, replace_whole
from manybody.study.figures import draw_figures
from manybody.study.notation import plain, typeset, with_error

if TYPE_CHECKING:
    import jinja2

REPORT = "report.html"
# Beside the report, by relative links: what the file is, for a reader who wants the numbers and not the page.
FILES = {
    "certificate.json": "every check with its evidence",
    "study.yaml": "the study as it was run",
    RESULTS: "values, errors and series (Zarr; opens with xarray)",
    CONFIGURATIONS: "last configurations (extended XYZ; opens with ASE, OVITO, VMD)",
}
MARKS = {Verdict.HOLDS: "✓", Verdict.UNDECIDED: "?", Verdict.FAILS: "✗"}
RUNS_LISTED = 200  # realisations in the provenance table


def write_report(
    out: Path, plan: Plan, evidence: Evidence, certificate: Certificate, provenance: Mapping[str, Any], command: str
) -> Path:
    """Write `out`/report.html and return its path; an earlier report is replaced at once or not at all.

    `provenance` may nest; it is shown as it comes. `command` is what repeats the study. Links are made to those of the
    other files that already lie in `out`.
    """
    found = answers(plan, evidence, certificate)
    page = (
        _templates()
        .get_template("report.html")
        .render(
            study=plan.study,
            certificate=certificate,
            marks=MARKS,
            conclusion=conclusion(certificate),
            answers=_answer_table(plan, found),
            statistics=[_statistics(answer) for answer in found if not answer.is_curve],
            figures=draw_figures(plan, evidence, found),
            checks=ranked(certificate.checks),
            specs=_spec_tables(plan.study),
            measures=plan.study.measures,
            scales=plan.study.unit_system,
            provenance=list(flat(provenance)),
            workers=Counter(evidence.computed_by(task) for task in plan.tasks).most_common(),
            runs=[(run, evidence.result_digest(run.tasks[-1])) for run in plan.realisations[:RUNS_LISTED]],
            tasks=len(plan.tasks),
            command=command,
            files={name: words for name, words in FILES.items() if (out / name).exists()},
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    replace_whole(out / REPORT, lambda path: path.write_text(page, encoding="utf-8"))
    return out / REPORT


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("manybody.study"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "rows": lambda document: list(flat(document)),
        "sentence": sentence,
        "typeset": typeset,
    }
    return environment


def sentence(text: str) -> str:
    """Words as a sentence: the first letter a capital, a full stop at the end."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def conclusion(certificate: Certificate) -> str:
    """The verdict in a sentence: how many claims hold, and which do not."""
    total = len(certificate.checks)
    wrong = [finding for finding in ranked(certificate.checks) if finding.verdict is not Verdict.HOLDS]
    if not total:
        return "No claim was tested, so nothing is decided."
    if not wrong:
        return "The one claim tested holds." if total == 1 else f"All {total} claims tested hold."
    named = ", ".join(f"{finding.name} ({finding.verdict})" for finding in wrong[:3])
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"{total - len(wrong)} of {total} claims hold; not so: {named}{more}."


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Failing findings first, then undecided ones, then those that hold; otherwise in their own order."""
    order = [Verdict.FAILS, Verdict.UNDECIDED, Verdict.HOLDS]
    return sorted(findings, key=lambda finding: order.index(finding.verdict))


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested document as (path, text) rows."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}: ")
        elif isinstance(value, float):
            yield f"{prefix}{key}", f"{value:.6g}"
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(entry) for entry in value)
        else:
            yield f"{prefix}{key}", "none" if value is None else str(value)


# --- the answer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerTable:
    """The measured numbers as a table: `rows` hold the swept values of a point and one cell a measure."""

    swept: tuple[str, ...]
    symbols: tuple[tuple[str, str], ...]
    rows: tuple[tuple[tuple[str, ...], tuple[AnswerCell, ...]], ...]


@dataclass(frozen=True)
class AnswerCell:
    """A value with its error, and in words how it compares with its reference."""

    text: str
    reference: str


def _answer_table(plan: Plan, found: Sequence[Answer]) -> AnswerTable:
    numbers = [answer for answer in found if not answer.is_curve]
    measures = {answer.measure.name: (typeset(answer.measure.symbol), typeset(answer.measure.unit)) for answer in numbers}
    paths = list(dict.fromkeys(path for place in plan.study.sweep for path in place))
    rows = [
        (
            tuple(_show(point, path, plan.study.unit_system) for path in paths),
            tuple(_cell(answer) for answer in numbers if answer.point.index == point.index),
        )
        for point in plan.points
    ]
    return AnswerTable(tuple(path.split(".")[1].replace("_", " ") for path in paths), tuple(measures.values()), tuple(rows))


def _cell(answer: Answer) -> AnswerCell:
    text = with_error(answer.estimate.value, answer.estimate.error)
    known = answer.comparison
    if known is None:
        return AnswerCell(text, "")
    return AnswerCell(text, f"reference {with_error(known.reference, known.reference_error)}, {known.residual:+.1f} s.e.")


def _statistics(answer: Answer) -> dict[str, str]:
    estimate = answer.estimate
    return {
        "measure": typeset(answer.measure.symbol),
        "point": answer.point.label,
        "value": with_error(estimate.value, estimate.error),
        "samples": str(estimate.samples),
        "independent": f"{estimate.samples_effective:.0f}",
        "correlation time": f"{estimate.correlation_time:.3g}",
        "runs": " ".join(with_error(value, error) for value, error in zip(estimate.runs, estimate.run_errors, strict=True)),
    }


# --- methods ---------------------------------------------------------------------------------------------------------


def _spec_tables(study: Study) -> list[tuple[str, NamedSpec, list[tuple[str, str, str]]]]:
    """For the system and the method: (heading, spec, rows of field, value and what it means)."""
    parts = (("System", study.system), ("Method", study.method))
    return [(heading, spec, _field_rows(spec, study.unit_system)) for heading, spec in parts]


def _field_rows(spec: NamedSpec, units: UnitSystem | None) -> list[tuple[str, str, str]]:
    fields = [name for name in type(spec).model_fields if name != "name"]
    return [
        (name.replace("_", " "), show_field(spec, name, units), type(spec).model_fields[name].description or "")
        for name in fields
    ]


def show_field(spec: NamedSpec, name: str, units: UnitSystem | None) -> str:
    """The value of a field for a reader: with its unit where the study has scales."""
    value = getattr(spec, name)
    dimension = next((each for each in type(spec).model_fields[name].metadata if isinstance(each, Dimension)), None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if dimension is None else show_quantity(value, dimension, units)
    return str(value)


def _show(point: Point, path: str, units: UnitSystem | None) -> str:
    part, name = path.split(".")
    return show_field(getattr(point, part), name, units)
