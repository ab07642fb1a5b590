"""Certify: every check judges the evidence; certificate, results and report are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manybody.core.certificate import Certificate, Finding
from manybody.core.protocols import Evidence
from manybody.core.split import States
from manybody.core.study import Plan
from manybody.study.export import replace_whole, write_results
from manybody.study.file import dump_study
from manybody.study.report import write_report
from manybody.study.word import Word


def findings(plan: Plan, evidence: Evidence, word: Word | None = None) -> Certificate:
    """The certificate of a finished plan; with `word`, how far the nodes that computed it were believed, too."""
    found = [
        finding for check, tasks in zip(plan.study.checks, plan.evidence, strict=True) for finding in check.judge(evidence, tasks)
    ]
    found += _stated(plan, evidence)
    if word is None:
        return Certificate.of(plan.study.name, plan.study.digest, found)
    certificate = Certificate.of(plan.study.name, plan.study.digest, [*found, *word.findings()])
    return certificate.model_copy(update={"missing": (*certificate.missing, *word.missing())})


def _stated(plan: Plan, evidence: Evidence) -> Iterator[Finding]:
    """What methods state themselves of every run; they need no check for it."""
    for run in plan.realisations:
        if isinstance(run.point.method, States):
            yield from run.point.method.states(run, [evidence.output(task) for task in run.measured])


def certify(
    plan: Plan, evidence: Evidence, out: Path, origin: dict[str, Any], command: str, word: Word
) -> tuple[Certificate, Path, Path]:
    """Judge, and write certificate, resolved study, results and report into `out`; returns the first and the last path.

    `word` is how far the nodes that computed the results were believed.
    """
    certificate = findings(plan, evidence, word)
    place = out / "certificate.json"
    _write(place, certificate.model_dump_json(indent=2) + "\n")
    _write(out / "study.yaml", dump_study(plan.study))
    write_results(out, plan, evidence)
    return certificate, place, write_report(out, plan, evidence, certificate, origin, command)


def _write(path: Path, text: str) -> None:
    replace_whole(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))
