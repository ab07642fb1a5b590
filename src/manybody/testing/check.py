"""The contract of a check: findings that can be read, that follow from their values, and that can fail."""

from __future__ import annotations

from manybody.core.certificate import Finding, Verdict
from manybody.core.protocols import CheckSpec, Evidence


def verify_check(check: CheckSpec, good: Evidence, bad: Evidence) -> None:
    """Assert that `check` keeps its contract: it holds on `good` evidence and does not on `bad`.

    Extra tasks are the same on every call; findings name their claim and the origin of their tolerance; their
    verdicts follow from value and tolerance; they survive the way to a file and back.
    """
    assert check.tasks(good.plan) == check.tasks(good.plan), f"{check.name}: its tasks change from call to call"
    found = check.judge(good, check.tasks(good.plan))
    assert found, f"{check.name}: no finding on good evidence"
    assert len({finding.name for finding in found}) == len(found), f"{check.name}: two findings of one name"
    for finding in found:
        _verify_finding(check, finding)
    right = Verdict.worst([finding.verdict for finding in found])
    assert right is Verdict.HOLDS, f"{check.name} refuses good evidence: {found}"
    wrong = check.judge(bad, check.tasks(bad.plan))
    judged = Verdict.worst([finding.verdict for finding in wrong])
    assert judged is not Verdict.HOLDS, f"{check.name} passes bad evidence: {wrong}"


def _verify_finding(check: CheckSpec, finding: Finding) -> None:
    assert finding.kind == check.kind
    assert finding.claim, "a finding says what it claims"
    assert finding.tolerance_from, "a finding says where its tolerance comes from"
    assert Finding.model_validate_json(finding.model_dump_json()) == finding
    if finding.verdict is Verdict.HOLDS:
        assert finding.value is not None
        assert finding.tolerance is not None
        assert abs(finding.value) <= finding.tolerance
    assert type(check).model_validate(check.document()) == check
    assert type(check).summary, "`manybody checks` prints a summary"
