"""The check of error bars."""

from dataclasses import replace

from manybody.checks.error_bars import ErrorBars
from manybody.core.certificate import Verdict
from manybody.testing.check import verify_check


def test_contract(evidence) -> None:
    # Runs that scatter by 0.02 where their own errors are 0.04 / sqrt(5000) are stuck in different places.
    verify_check(ErrorBars(), evidence("error-bars"), evidence("error-bars", run_scatter=0.02))


def test_one_run_cannot_tell(evidence) -> None:
    measured = evidence("error-bars")
    study = measured.plan.study.model_copy(update={"repeats": 1})
    only = [run for run in measured.plan.realisations if run.repeat == 0]
    plan = type(measured.plan)(study, tuple(only))
    single = type(measured)(plan, measured._results, measured._objects)
    found = ErrorBars().judge(single, ())
    assert [finding.verdict for finding in found] == [Verdict.UNDECIDED] * 2
    assert "at least 2 repeats" in found[0].claim


def test_chi_squared_of_honest_runs_is_near_its_degrees_of_freedom(evidence) -> None:
    found = ErrorBars().judge(evidence("error-bars"), ())
    for finding in found:
        assert finding.evidence["degrees_of_freedom"] == 2
        assert abs(finding.value) < 3.0


def test_a_run_whose_samples_are_all_equal_tells_nothing(evidence) -> None:
    measured = evidence("error-bars")
    honest = measured.estimate

    def without_scatter(point, measure):
        found = honest(point, measure)
        return replace(found, run_errors=(0.0, *found.run_errors[1:])) if point.index == 0 else found

    measured.estimate = without_scatter
    found = ErrorBars().judge(measured, ())
    assert [finding.evidence["degrees_of_freedom"] for finding in found] == [1, 1]
    assert all(finding.verdict is Verdict.HOLDS for finding in found)
