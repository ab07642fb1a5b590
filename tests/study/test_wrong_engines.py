"""An engine that is wrong in a known way gets a certificate that says no; the right one, asked the same, does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manybody.core import catalog
from manybody.core.certificate import Certificate, Finding, Verdict
from manybody.core.study import Study
from manybody.study.run import RunOptions, run_study

PLUGINS = Path(__file__).parents[1] / "plugins"


class Silent:
    def planned(self, *told: object) -> None: ...

    def event(self, *told: object) -> None: ...

    def judged(self, *told: object) -> None: ...


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The wrong engines installed, here and in worker processes, as any package that brings entry points."""
    monkeypatch.syspath_prepend(str(PLUGINS))
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS))
    catalog.entries.cache_clear()
    yield
    catalog.entries.cache_clear()


def certificate(tmp_path: Path, method: str = "molecular-dynamics", tail: bool = True, **settings: object) -> Certificate:
    study = Study.model_validate(
        {
            "name": "wrong-engine",
            "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776, "tail_correction": tail},
            "method": {"name": method, "duration": 24.0, "segment": 12.0, "equilibration": 6.0} | settings,
            "measures": ["potential-energy", "pressure"],
            "checks": ["conservation", "convergence", {"name": "reference", "max_error_ratio": 20.0}],
        }
    )
    return run_study(study, RunOptions(home=tmp_path / "home", out=tmp_path / "out"), Silent()).findings


def found(certificate: Certificate, kind: str) -> list[Finding]:
    return [finding for finding in certificate.checks if finding.kind == kind]


def test_the_right_engine_is_believed(tmp_path: Path) -> None:
    assert certificate(tmp_path).verdict is Verdict.HOLDS


def test_forces_that_are_one_percent_too_large_are_refused(tmp_path: Path, plugins: None) -> None:
    judged = certificate(tmp_path, "scaled-force-dynamics")
    assert judged.verdict is Verdict.FAILS
    (order,) = found(judged, "convergence")
    assert order.verdict is Verdict.FAILS
    assert order.value == pytest.approx(-2, abs=0.5)  # the error does not fall at all: it is no matter of the time step


def test_a_thermostat_left_on_is_refused(tmp_path: Path, plugins: None) -> None:
    judged = certificate(tmp_path, "thermostat-left-on-dynamics")
    assert judged.verdict is Verdict.FAILS
    assert found(judged, "convergence")[0].verdict is Verdict.FAILS
    nve = certificate(tmp_path / "nve", "thermostat-left-on-dynamics", thermostat="none")
    assert found(nve, "convergence")[0].verdict is Verdict.FAILS


def test_a_cutoff_without_correction_is_refused(tmp_path: Path) -> None:
    judged = certificate(tmp_path, tail=False)
    assert judged.verdict is Verdict.FAILS
    assert [finding.verdict for finding in found(judged, "reference")] == [Verdict.FAILS, Verdict.FAILS]
    assert found(judged, "convergence")[0].verdict is Verdict.HOLDS
