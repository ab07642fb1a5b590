"""The study of soft spheres, with few of them: the virial theorem holds in every sample, and a wrong node is found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Progress, Task
from manybody.engines.particles import stages
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies" / "soft-spheres"
OTHER = {"name": "formula", "expression": "r2**-6 + 0.01/r2**3", "parameters": {}}


@pytest.fixture(scope="module")
def small() -> Study:
    times = ["equilibration=0.02", "duration=0.04", "segment=0.04", "sample_every=0.004", "frame_every=0.02"]
    fewer = ["system.atoms=108", "repeats=1", "checks=[{virial-theorem: {exponent: 12}}]"]
    points = (
        "sweep=[{system.density: 0.6, system.cutoff: 2}, {system.density: 0.9, system.temperature: 5.0625, system.cutoff: 1.75}]"
    )
    return load_study(GALLERY, [f"method.{time}" for time in times] + [*fewer, points])


class Device:
    """A node that has no compiler: the plain twins run."""

    device, threads = "cpu:0", 1

    def progress(self, progress: Progress) -> None:
        pass

    def resume(self) -> Output | None:
        return None

    def keep(self, output: Output) -> None:
        pass


@pytest.fixture
def node() -> Device:
    return Device()


def wrong(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A stage that computes another potential than asked for."""
    return stages.produce(task.model_copy(update={"system": task.system | {"potential": OTHER}}), inputs, context)


@pytest.mark.parametrize(
    ("instead", "verdict"), [({}, Verdict.HOLDS), ({"produce": wrong}, Verdict.FAILS)], ids=["right", "wrong"]
)
def test_the_virial_is_twelve_times_the_energy(small, evidence: Callable[..., Measured], instead, verdict) -> None:
    measured = evidence(small, **instead)
    found = findings(measured.plan, measured).checks
    assert [finding.verdict for finding in found] == [verdict] * 2
    assert found[0].evidence == {"samples": 10, "exponent": 12}
    factor = measured.estimate(measured.plan.points[0], "compressibility-factor").value
    pressure = measured.estimate(measured.plan.points[0], "pressure").value
    assert factor == pytest.approx(pressure / 0.6, rel=1e-12)
    assert factor > 1


def test_the_theorem_is_refused_for_what_is_no_simple_fluid(small: Study) -> None:
    liquid = LennardJonesLiquid(temperature=1.0, density=0.6, atoms=500, cutoff=2.5)
    with pytest.raises(InputError, match="a simple-fluid; got lennard-jones-liquid"):
        expand(small.model_copy(update={"system": liquid, "sweep": ({},)}))


def test_the_gas_is_compared_with_virial_coefficients(monkeypatch) -> None:
    monkeypatch.chdir(GALLERY.parents[1])  # tables are named from the project's root
    study = load_study(GALLERY / "dilute.yaml", [])
    assert {check.name for check in study.checks} >= {"reference", "virial-theorem"}
