"""The studies of the gallery: certificates hold, and do not when the physics or a node is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Certificate, Verdict
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.active import stages
from manybody.engines.active.observables import Phases, counted, peaks
from manybody.engines.active.spec import ActiveBrownianParticles
from manybody.study.certify import findings
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies"
Evidence = Callable[..., Measured]


@pytest.fixture(scope="module")
def small() -> Study:
    """The study of free swimmers with fewer of them, for a shorter time."""
    times = ["method.duration=24", "method.segment=12", "method.frame_every=12", "repeats=2"]
    points = "sweep=[{system.speed: 0, method.sample_every: 1}, {system.speed: 20, method.sample_every: 0.3}]"
    return load_study(GALLERY / "active-brownian", ["system.particles=1000", *times, points])


def verdicts(certificate: Certificate) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for finding in certificate.checks:
        found.setdefault(finding.name.split(" at ")[0], []).append(finding.verdict)
    return found


def changed(**changes: float) -> Callable[..., Output]:
    """A stage that computes another system than asked for."""

    def stage(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        wrong = task.model_copy(update={"system": task.system | changes})
        return (stages.produce if inputs else stages.equilibrate)(wrong, inputs, context)

    return stage


def test_free_swimmers_follow_theory(small: Study, evidence: Evidence) -> None:
    measured = evidence(small)
    certificate = findings(measured.plan, measured)
    assert certificate.verdict is Verdict.HOLDS
    assert sum(finding.name.startswith("mean-square-displacement at") for finding in certificate.checks) == 2


@pytest.mark.parametrize(
    ("changes", "measure"),
    [
        ({"diffusivity": 1.2}, "mean-square-displacement"),
        ({"speed": 17.0}, "mean-square-displacement"),
        ({"speed": 17.0}, "long-time-diffusivity"),
        ({"rotational_diffusivity": 3.2}, "orientation-correlation"),
    ],
)
def test_another_system_fails(small: Study, evidence: Evidence, changes: dict[str, float], measure: str) -> None:
    measured = evidence(small, produce=changed(**changes))
    assert Verdict.FAILS in verdicts(findings(measured.plan, measured))[measure]


def test_forces_that_do_not_cancel_fail(evidence: Evidence) -> None:
    """A drift of a hundred-millionth of a diameter a sample breaks the claim that pairs exert no net force."""

    def drifting(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        output = stages.produce(task, inputs, context)
        return Output({**output.arrays, "centre": 1e-8 * np.arange(len(output.arrays["centre"]))}, output.document)

    times = ["method.equilibration=0.0128", "method.duration=0.0512", "method.segment=0.0256", "method.frame_every=0.0128"]
    points = "sweep=[{method.start: strip}]"
    study = load_study(GALLERY / "active-phase-separation", ["system.particles=100", *times, points])
    sound, wrong = evidence(study), evidence(study, produce=drifting)
    assert verdicts(findings(sound.plan, sound))["conservation of centre"] == [Verdict.HOLDS]
    assert verdicts(findings(wrong.plan, wrong))["conservation of centre"] == [Verdict.FAILS]


def test_the_study_of_separation_claims_what_is_published() -> None:
    """Two phases at Pe 100 and one at Pe 20, from either start; nothing is claimed near the critical point or elsewhere."""
    study = load_study(GALLERY / "active-phase-separation")
    claims = [Phases().exact(study.point(index)) for index in range(4)]
    assert [claim.value for claim in claims if claim] == [1.0, 1.0, 2.0, 2.0]
    for path, value in (("speed", 45.0), ("area_fraction", 0.3), ("repulsion", 50.0), ("rotational_diffusivity", 9.0)):
        elsewhere = load_study(
            GALLERY / "active-phase-separation", [f"sweep=[{{system.{path}: {value}, method.time_step: 1e-5}}]"]
        )
        assert Phases().exact(elsewhere.point(0)) is None


def scattered(system: ActiveBrownianParticles, shares: tuple[float, float]) -> Output:
    """Frames with this share of the particles in the left half of the square, on jittered grids; the rest in the right."""
    generator = np.random.default_rng(5)
    halves = []
    for offset, share in ((0.0, shares[0]), (0.5, shares[1])):
        count = round(system.particles * share)
        rows = int(np.sqrt(2 * count))
        columns = -(-count // rows)
        row, column = np.divmod(np.arange(count), columns)
        halves.append(np.stack([offset + (column + 0.5) / columns / 2, (row + 0.5) / rows], axis=1))
    x = np.concatenate(halves) * system.edge
    return Output({"frames": np.pad((x + generator.normal(0, 0.2, (20, *x.shape))) % system.edge, ((0, 0), (0, 0), (0, 1)))})


@pytest.mark.parametrize(("shares", "number"), [((0.5, 0.5), 1.0), ((0.8, 0.2), 2.0), ((0.55, 0.45), 1.0)])
def test_phases_are_counted(shares: tuple[float, float], number: float) -> None:
    point = load_study(GALLERY / "active-phase-separation").point(2)
    assert isinstance(point.system, ActiveBrownianParticles)
    assert set(Phases().samples(point, [scattered(point.system, shares)]).values) == {number}


def test_every_particle_is_counted_once_on_every_grid() -> None:
    frames = np.random.default_rng(3).uniform(0, 21.0, (3, 150, 2))
    shares = counted(frames, 21.0, 60)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    np.testing.assert_allclose(shares @ np.arange(61), 150 / 25)


def test_peaks_of_smooth_distributions() -> None:
    bins = np.arange(30)

    def bump(centre: float) -> np.ndarray:
        return np.exp(-((bins - centre) ** 2) / 8)

    assert peaks(bump(9)) == 1
    assert peaks(0.5 * bump(5) + bump(20)) == 2
    assert peaks(0.02 * bump(5) + bump(20)) == 1
    assert peaks(bump(0) + bump(29)) == 2
