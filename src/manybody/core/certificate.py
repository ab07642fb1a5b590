"""Certificates: every claim tested, its tolerance and where that comes from, and the verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from manybody.core.spec import Frozen

CheckKind = Literal["invariant", "reference", "convergence", "replication", "statistics", "calibration"]
KINDS: tuple[CheckKind, ...] = ("invariant", "reference", "convergence", "replication", "statistics", "calibration")


class Verdict(StrEnum):
    """What a check found. `UNDECIDED` means that the evidence does not suffice, which is not a pass."""

    HOLDS = "holds"
    UNDECIDED = "undecided"
    FAILS = "fails"

    @classmethod
    def worst(cls, verdicts: list[Verdict]) -> Verdict:
        """The worst of several; no verdict at all is `UNDECIDED`."""
        order = [cls.HOLDS, cls.UNDECIDED, cls.FAILS]
        return max(verdicts, key=order.index, default=cls.UNDECIDED)


class Finding(Frozen):
    """One claim tested. `value` holds when it is within `tolerance`; `tolerance_from` says where that comes from."""

    name: str
    kind: CheckKind
    claim: str
    value: float | None
    tolerance: float | None
    tolerance_from: str
    source: str = ""
    verdict: Verdict
    evidence: dict[str, Any] = {}


class Certificate(Frozen):
    """All the findings of a study. The worst verdict is its own; kinds of check that were not made are `missing`."""

    study: str
    digest: str
    verdict: Verdict
    checks: tuple[Finding, ...]
    missing: tuple[str, ...]

    @classmethod
    def of(cls, study: str, digest: str, findings: list[Finding]) -> Certificate:
        """The certificate of a study's findings."""
        made = {finding.kind for finding in findings}
        return cls(
            study=study,
            digest=digest,
            verdict=Verdict.worst([finding.verdict for finding in findings]),
            checks=tuple(findings),
            missing=tuple(kind for kind in KINDS if kind not in made),
        )


def judge(value: float | None, tolerance: float) -> Verdict:
    """`HOLDS` when |value| <= tolerance; `UNDECIDED` when there is no value; NaN fails."""
    if value is None:
        return Verdict.UNDECIDED
    return Verdict.HOLDS if abs(value) <= tolerance else Verdict.FAILS
