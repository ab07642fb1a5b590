"""Certificates and verdicts."""

import math

from manybody.core.certificate import KINDS, Certificate, Finding, Verdict, judge


def finding(verdict: Verdict, name: str = "energy") -> Finding:
    return Finding(
        name=name, kind="invariant", claim="energy stays", value=0.1, tolerance=0.2, tolerance_from="round-off", verdict=verdict
    )


def test_the_worst_verdict_is_the_certificates() -> None:
    order = [Verdict.HOLDS, Verdict.UNDECIDED, Verdict.FAILS]
    for worst in range(3):
        certificate = Certificate.of("study", "digest", [finding(verdict) for verdict in order[: worst + 1]])
        assert certificate.verdict is order[worst]


def test_nothing_checked_is_not_a_pass() -> None:
    certificate = Certificate.of("study", "digest", [])
    assert certificate.verdict is Verdict.UNDECIDED
    assert certificate.missing == KINDS


def test_missing_kinds_are_said() -> None:
    certificate = Certificate.of("study", "digest", [finding(Verdict.HOLDS)])
    assert "invariant" not in certificate.missing
    assert "reference" in certificate.missing


def test_nan_fails_and_no_value_is_undecided() -> None:
    assert judge(math.nan, 1.0) is Verdict.FAILS
    assert judge(None, 1.0) is Verdict.UNDECIDED
    assert judge(-1.0, 1.0) is Verdict.HOLDS
    assert judge(-1.0000001, 1.0) is Verdict.FAILS
    assert judge(0.0, 0.0) is Verdict.HOLDS
