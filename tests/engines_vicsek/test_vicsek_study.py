"""The study of flocks: its certificate holds, and does not when the physics is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.vicsek import stages
from manybody.engines.vicsek.observables import NumberFluctuations, OrderBalance, OrderParameter, SquaredOrder
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies"
Evidence = Callable[..., Measured]


@pytest.fixture(scope="module")
def small() -> Study:
    """A flock, full noise, walkers that see no other, and one crowd in which each sees all."""
    noises = "{system.noise: 2}, {system.noise: 6.283185307179586}, {system.noise: 1, system.radius: 0}"
    points = f"sweep=[{noises}, {{system.noise: 3, system.radius: 6}}]"
    times = ["method.equilibration=200", "method.duration=800", "method.segment=400", "method.sample_every=10"]
    return load_study(GALLERY / "vicsek", ["system.particles=100", "method.frame_every=100", "repeats=2", *times, points])


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


def test_flocks_follow_theory(small: Study, evidence: Evidence) -> None:
    measured = evidence(small)
    certificate = findings(measured.plan, measured)
    assert certificate.verdict is Verdict.HOLDS
    exact = [finding.name for finding in certificate.checks if finding.kind == "reference"]
    assert {name.split(" at ")[0]: sum(other.startswith(name.split(" at ")[0]) for other in exact) for name in exact} == {
        "order-parameter": 2,
        "squared-order": 3,
        "order-balance": 4,
        "heading-correlation": 2,
        "flock-displacement": 2,
    }


@pytest.mark.parametrize(
    ("changes", "measures"),
    [
        ({"noise": 2.4, "speed": 0.33}, ["order-balance", "squared-order", "heading-correlation", "flock-displacement"]),
        ({"radius": 1.0}, ["order-parameter", "squared-order", "flock-displacement"]),
    ],
)
def test_another_flock_fails(small: Study, evidence: Evidence, changes: dict[str, float], measures: list[str]) -> None:
    found = verdicts(evidence(small, produce=changed(**changes)))
    assert [name for name in measures if Verdict.FAILS not in found[name]] == []


def test_what_is_known_of_a_point(small: Study) -> None:
    flock, full, alone, crowd = (small.point(index) for index in range(4))
    assert OrderParameter().exact(flock) is None
    assert SquaredOrder().exact(flock) is None
    assert OrderBalance().exact(flock).value == 0
    assert OrderParameter().exact(full).value == pytest.approx(math.sqrt(math.pi / 400), rel=1e-3)
    assert SquaredOrder().exact(alone).value == 0.01
    assert SquaredOrder().exact(crowd).value > 0.3
    silent = load_study(GALLERY / "vicsek", ["sweep=[{system.noise: 0}]"]).point(0)
    assert OrderParameter().exact(silent).value == 1.0


def test_there_is_no_order_in_steps_to_find(small: Study) -> None:
    with pytest.raises(TaskError, match="Leave out the check `convergence`"):
        small.method.twin(expand(small).realisations[0], 0.5)


def test_number_fluctuations_of_scattered_particles_are_binomial(small: Study) -> None:
    """The variance of a count of 400 particles over 400 squarings spreads by a few per cent."""
    point = load_study(GALLERY / "vicsek", ["system.particles=400", "sweep=[{system.radius: 0}]"]).point(0)
    frames = np.random.default_rng(3).uniform(0, 10.0, (400, 400, 3)).astype(np.float32)
    measure = NumberFluctuations(levels=3)
    curve = measure.samples(point, [Output({"frames": frames})])
    np.testing.assert_allclose(curve.axis, [400 / 64, 400 / 16, 400 / 4])
    np.testing.assert_allclose(curve.values.mean(axis=0), measure.expected(point, []), rtol=0.2)
    assert measure.expected(small.point(0), []) is None
