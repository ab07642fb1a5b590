"""The studies of active Ornstein-Uhlenbeck particles: certificates hold, and do not when the physics is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.active.coloured import stages
from manybody.engines.active.coloured.spec import ActiveOrnsteinUhlenbeckParticles
from manybody.engines.active.observables import LocalDensity, Phases
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies"
Evidence = Callable[..., Measured]


@pytest.fixture(scope="module")
def free() -> Study:
    points = "sweep=[{method.sample_every: 0.5}, {method.sample_every: 2}]"
    times = ["method.duration=24", "method.segment=12", "method.frame_every=12", "repeats=2"]
    return load_study(GALLERY / "active-ornstein-uhlenbeck", ["system.particles=400", *times, points])


@pytest.fixture(scope="module")
def trapped() -> Study:
    times = ["method.duration=16", "method.segment=8", "method.frame_every=8", "method.equilibration=4", "repeats=2"]
    points = "sweep=[{system.persistence_time: 0.5}, {system.persistence_time: 1, system.anharmonicity: 1}]"
    return load_study(GALLERY / "active-ornstein-uhlenbeck-trap", ["system.particles=1000", *times, points])


def changed(**changes: float) -> Callable[..., Output]:
    """A stage that computes another system than asked for."""

    def stage(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        return stages.produce(task.model_copy(update={"system": task.system | changes}), inputs, context)

    return stage


def verdicts(measured: Measured) -> dict[str, set[Verdict]]:
    found: dict[str, set[Verdict]] = {}
    for finding in findings(measured.plan, measured).checks:
        found.setdefault(finding.name.split(" at ")[0], set()).add(finding.verdict)
    return found


def test_free_particles_follow_theory(free: Study, evidence: Evidence) -> None:
    sound = verdicts(evidence(free))
    assert {Verdict.HOLDS} == set().union(*sound.values())
    assert {"mean-square-displacement", "velocity-correlation", "long-time-diffusivity", "conservation of centre"} <= set(sound)


def test_another_noise_fails(free: Study, evidence: Evidence) -> None:
    found = verdicts(evidence(free, produce=changed(active_temperature=1.3)))
    for measure in ("mean-square-displacement", "velocity-correlation", "long-time-diffusivity"):
        assert Verdict.FAILS in found[measure]


def test_trapped_particles_follow_theory(trapped: Study, evidence: Evidence) -> None:
    """Nothing is claimed in closed form of the anharmonic trap."""
    measured = evidence(trapped)
    certificate = findings(measured.plan, measured)
    assert certificate.verdict is Verdict.HOLDS
    exact = [finding.name for finding in certificate.checks if finding.kind == "reference"]
    assert len(exact) == 4
    assert not any("anharmonicity" in name and "anharmonicity 0" not in name for name in exact)


def test_an_anharmonic_trap_fails_as_a_harmonic_one(trapped: Study, evidence: Evidence) -> None:
    found = verdicts(evidence(trapped, produce=changed(anharmonicity=1.0)))
    for measure in ("effective-temperature", "entropy-production", "mean-square-displacement"):
        assert Verdict.FAILS in found[measure]


def test_free_particles_have_no_order_to_find(free: Study) -> None:
    study = free.model_validate(free.document() | {"checks": ["convergence"]})
    with pytest.raises(TaskError, match="Leave out the check `convergence`"):
        expand(study)


def test_densities_are_read_of_either_kind() -> None:
    changes = ["system.particles=150", "system.area_fraction=0.4", "system.repulsion=10", "method.time_step=1e-4"]
    point = load_study(GALLERY / "active-ornstein-uhlenbeck", [*changes, "sweep=[{}]", "method.frame_every=1"]).point(0)
    assert isinstance(point.system, ActiveOrnsteinUhlenbeckParticles)
    frames = np.random.default_rng(3).uniform(0, point.system.edge, (3, 150, 3)).astype(np.float32)
    curve = LocalDensity().samples(point, [Output({"frames": frames})])
    per_disk = curve.axis[1]
    assert (curve.values * per_disk) @ curve.axis == pytest.approx(0.4, rel=1e-6)
    assert Phases().exact(point) is None
    assert set(Phases().samples(point, [Output({"frames": frames})]).values) == {1.0}
