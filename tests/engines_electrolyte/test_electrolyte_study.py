"""The study of the gallery, in small: its certificate holds, and does not where correlations are screened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from manybody.checks.extrapolation import Extrapolation
from manybody.core.certificate import Certificate, Verdict
from manybody.core.protocols import Context, Stage
from manybody.core.study import Point, Study
from manybody.core.task import Output, Task
from manybody.engines.electrolyte import stages
from manybody.engines.electrolyte.known_answers import density_tail, first_correction
from manybody.engines.electrolyte.observables import (
    CorrelationTail,
    DensityCorrelation,
    DensityDiscontinuity,
    RelaxationForce,
    Screening,
)
from manybody.engines.electrolyte.spec import DrivenElectrolyte, IonDynamics
from manybody.engines.electrolyte.structure import long_modes
from manybody.study.certify import findings
from manybody.study.file import load_study
from manybody.study.measure import Measured
from manybody.testing.check import verify_check

GALLERY = Path(__file__).parents[2] / "studies" / "driven-electrolyte"
Evidence = Callable[..., Measured]


@pytest.fixture(scope="module")
def small() -> Study:
    """A box of half the edge, for a short time; a field of 3."""
    times = ["method.duration=200", "method.segment=100", "method.frame_every=50", "method.equilibration=10", "method.modes=3"]
    fixed = ["repeats=1", "checks=[conservation, exact, convergence]"]
    return load_study(GALLERY, [*times, *fixed, "sweep=[{system.field: 3, system.ions: 60}]"])


@pytest.fixture(scope="module")
def full() -> Study:
    """The points of the study without a field and with one of 3, but for what it takes to move ions."""
    paths = "system.field: {}, system.coupling: {}, system.ions: {}"
    points = ", ".join(f"{{{paths.format(*values)}}}" for values in ((0, 0.8, 408), (0, 0.4, 816), (3, 0.8, 408), (3, 0.4, 816)))
    limit = "path: system.coupling, alongside: [system.ions], measures: [density-discontinuity, correlation-tail, screening]"
    checks = f"checks=[exact, stationarity, error-bars, {{extrapolation: {{{limit}}}}}]"
    segments = ["method.segment=3000", "method.frame_every=3000", "method.modes=3"]
    return load_study(GALLERY, [checks, f"sweep=[{points}]", *segments])


def verdicts(certificate: Certificate) -> dict[str, set[Verdict]]:
    found: dict[str, set[Verdict]] = {}
    for finding in certificate.checks:
        found.setdefault(finding.name.split(" at ")[0], set()).add(finding.verdict)
    return found


def without_field(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A stage that forgets the field."""
    wrong = task.model_copy(update={"system": task.system | {"field": 0.0}})
    return (stages.produce if inputs else stages.equilibrate)(wrong, inputs, context)


def waves(**changes: float) -> Stage:
    """A stage that draws the long waves of the linear theory instead of moving ions.

    Each wave is a Gaussian process with the propagator and the covariance of the closed form, exact at the time of a sample.
    """

    def stage(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        if not inputs:
            return Output()
        system = DrivenElectrolyte.model_validate(task.system | changes)
        modes, samples = long_modes(system.edge, task.parameters["modes"]), round(task.parameters["time"])
        copies = modes.count.astype(int)
        along, square = np.repeat(modes.along, copies), np.repeat(modes.square, copies)
        now, later = np.moveaxis(system.theory.correlations(along, square, np.array([0.0, 1.0])), 1, 0)
        step = later @ np.linalg.inv(now)
        start, kick = (np.linalg.cholesky(c) for c in (now, now - step @ now @ step.conj().swapaxes(1, 2)))
        noise = task.key.generator().normal(0, np.sqrt(0.5), (samples + 1, 2, len(along), 2, 1))
        v, rows = start @ (noise[0, 0] + 1j * noise[0, 1]), []
        for real, imaginary in noise[1:]:
            v = step @ v + kick @ (real + 1j * imaginary)
            rows.append(np.add.reduceat(abs(v[..., 0]) ** 2, np.cumsum(copies) - copies, axis=0) / copies[:, None])
        power = np.array(rows)
        held = RelaxationForce().exact(Point(0, "", system, IonDynamics(time_step=0.1)))
        noise_of_force = 0.3 * held.tolerance * task.key.derive("held").generator().normal(size=samples)
        relaxation = system.coupling * (held.value + noise_of_force)
        return Output({"density": power[..., 0], "charge": power[..., 1], "relaxation": relaxation})

    return stage


def test_a_driven_electrolyte_follows_linear_theory(small: Study, evidence: Evidence) -> None:
    measured = evidence(small)
    assert findings(measured.plan, measured).verdict is Verdict.HOLDS


def test_ions_without_a_field_are_told_from_driven_ones(small: Study, evidence: Evidence) -> None:
    measured = evidence(small, equilibrate=without_field, produce=without_field)
    assert verdicts(findings(measured.plan, measured))["relaxation-force"] == {Verdict.FAILS}


def test_waves_of_linear_theory_hold_and_screened_ones_fail(full: Study, evidence: Evidence) -> None:
    """Screened: waves with the exponential correlations of ions without a field, held to what is claimed of driven ones."""
    driven = evidence(full, equilibrate=waves(), produce=waves())
    screened = evidence(full, equilibrate=waves(field=0.0), produce=waves(field=0.0))
    assert findings(driven.plan, driven).verdict is Verdict.HOLDS
    failed = {finding.name for finding in findings(screened.plan, screened).checks if finding.verdict is Verdict.FAILS}
    for measure in ("density-discontinuity", "correlation-tail", "screening"):
        places = {name for name in failed if name.startswith(f"{measure} at field 3")}
        assert len(places) == 3, f"{measure}: two points and their extrapolation should fail; {places}"
        assert not any(name.startswith(f"{measure} at field 0") for name in failed)
    (extrapolation,) = [check for check in full.checks if isinstance(check, Extrapolation)]
    verify_check(extrapolation, driven, screened)
    for point in driven.plan.points:
        check_tolerances(driven, point)


def check_tolerances(measured: Measured, point: Point) -> None:
    """Tolerances are four errors of one run by theory; blocking gives that of the mean of two, from about 50 blocks a run."""
    for measure in (DensityDiscontinuity(), Screening()):
        known, ours = measure.exact(point), measured.estimate(point, measure.name)
        beyond = 2 * first_correction(point.system.theory, point.system.coupling) * max(abs(known.value), 1)
        assert (known.tolerance - beyond) / 4 == pytest.approx(np.sqrt(2) * ours.error, rel=0.35)


def test_claims_of_the_study_tell_power_laws_from_screening() -> None:
    """At every field of the study the tolerances of what grows out of nothing are below the claim itself."""
    study = load_study(GALLERY)
    points = [study.point(index) for index in range(len(study.sweep))]
    driven = [point for point in points if point.system.field >= 1]
    assert len(driven) >= 3
    for point in driven:
        for measure in (DensityDiscontinuity(), CorrelationTail()):
            claim = measure.exact(point)
            assert claim.value > claim.tolerance


def test_correlations_in_space_are_level_times_the_cube_of_the_distance() -> None:
    """In a box of 100 Debye lengths, around 20: short waves are smoothed at less, images seen at more."""
    point = load_study(GALLERY, ["system.ions=99472", "method.modes=32", "sweep=[{system.field: 1}]"]).point(0)
    measure = DensityCorrelation(points=50)
    r, level = np.arange(1, 51) * point.system.edge / 100, measure.expected(point, [])
    inside = (r > 16) & (r < 24)
    assert level[inside].max() / level[inside].min() < 1.15
    assert level[inside].mean() == pytest.approx(density_tail(point.system.theory, 1.0, 0.0), rel=0.15)
