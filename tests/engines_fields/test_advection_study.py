"""The study of the gallery: its certificate holds, and does not when the scheme or a node is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from manybody.checks.exact import Exact
from manybody.core.certificate import Certificate, Verdict
from manybody.core.protocols import Context, Event, NodeInfo
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Task
from manybody.engines.fields import stages
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.known_answers import exact_variances
from manybody.engines.fields.observables import FieldVariance
from manybody.engines.fields.parts import Moment
from manybody.engines.fields.spec import AdvectedField, FiniteVolume
from manybody.store.objects import ObjectStore
from manybody.study.certify import findings
from manybody.study.conduct import Tally
from manybody.study.file import load_study
from manybody.study.measure import Measured
from manybody.study.run import Outcome, RunOptions, run_study
from manybody.testing.check import verify_check

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"
Evidence = Callable[..., Measured]


class Quiet:
    """Listens and keeps what it was told last."""

    def planned(self, plan: Plan, cached: int, nodes: Sequence[NodeInfo], expected_s: float) -> None:
        self.plan = plan

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        assert event.kind in ("started", "progress", "finished")

    def judged(self, outcome: Outcome) -> None:
        self.outcome = outcome


@pytest.fixture(scope="module")
def small() -> Study:
    """The study of the gallery on a coarser grid."""
    settings = ["rows=64", "columns=64", "time_step=0.01", "duration=0.4"]
    return load_study(GALLERY, [f"method.{setting}" for setting in settings])


def verdicts(certificate: Certificate) -> dict[str, Verdict]:
    return {finding.name.split(" at ")[0]: finding.verdict for finding in certificate.checks}


def test_the_study_of_the_gallery_holds(tmp_path: Path) -> None:
    """With real workers, from the file to the certificate."""
    listener = Quiet()
    outcome = run_study(load_study(GALLERY), RunOptions(home=tmp_path / "home", out=tmp_path / "out", workers=2), listener)
    assert outcome.verdict is Verdict.HOLDS
    assert outcome.wall_s < 60
    certificate = json.loads(outcome.certificate.read_text(encoding="utf-8"))
    assert {check["kind"] for check in certificate["checks"]} == {"invariant", "convergence", "reference", "replication"}
    # What worker processes gathered has the bits that the engine gives alone, here.
    (last,) = listener.plan.realisations[0].measured
    store = ObjectStore(tmp_path / "home" / "objects")
    method, system = listener.plan.study.method, listener.plan.study.system
    assert isinstance(method, FiniteVolume)
    assert isinstance(system, AdvectedField)
    engine = FieldEngine(system, method.grid)
    state = engine.step(engine.init(last.key), method.stride * method.samples)
    found = [store.get(path.parent.name + path.stem) for path in store.root.glob("??/*.safetensors")]
    fields = [
        output.arrays["field"] for output in found if output.document.get("step") == state.step and "field" in output.arrays
    ]
    assert len(fields) == 1
    np.testing.assert_array_equal(fields[0], state.field)


def test_everything_holds_on_sound_evidence(small: Study, evidence: Evidence) -> None:
    measured = evidence(small)
    assert findings(measured.plan, measured).verdict is Verdict.HOLDS


def wrong_velocity(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A part that is carried 0.1 % too fast."""
    system = task.system | {"velocity_x": task.system["velocity_x"] * 1.001}
    return stages.advance(task.model_copy(update={"system": system}), inputs, context)


def leak(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Every value lost by one part in 10^9 a round."""
    output = stages.advance(task, inputs, context)
    return Output({name: array * (1 - 1e-9) for name, array in output.arrays.items()})


def euler(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The twins by a scheme of first order in time: every step's error is dt^2 / 2 of the second derivative."""
    moment = Moment.model_validate(task.parameters)
    output = stages.converge(task, inputs, context)
    return Output({}, {**output.document, "field_error": 0.5 * moment.time_step})


def stale(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The first part takes its own eastern edge for its western neighbour's."""
    wrong = {"west": inputs["own"]} if task.parameters["first"] == 0 else {}
    return stages.advance(task, {**inputs, **wrong}, context)


def test_a_wrong_velocity_fails(small: Study, evidence: Evidence) -> None:
    measured = evidence(small, advance=wrong_velocity)
    found = verdicts(findings(measured.plan, measured))
    assert found["field-error"] is Verdict.FAILS
    assert found["conservation of mean"] is Verdict.HOLDS  # it is carried wrongly, but nothing is lost


def test_a_leak_fails(small: Study, evidence: Evidence) -> None:
    measured = evidence(small, advance=leak)
    assert verdicts(findings(measured.plan, measured))["conservation of mean"] is Verdict.FAILS


def test_a_wrong_neighbour_fails(small: Study, evidence: Evidence) -> None:
    measured = evidence(small, advance=stale)
    found = verdicts(findings(measured.plan, measured))
    assert found["field-error"] is found["conservation of mean"] is Verdict.FAILS


def test_a_scheme_of_lower_order_fails(small: Study, evidence: Evidence) -> None:
    measured = evidence(small, converge=euler)
    assert verdicts(findings(measured.plan, measured))["order in spacing"] is Verdict.FAILS


def test_the_check_keeps_its_contract(small: Study, evidence: Evidence) -> None:
    only = small.model_copy(update={"checks": (Exact(),)})
    verify_check(Exact(), evidence(only), evidence(only, advance=wrong_velocity))


def test_single_precision_holds_within_its_own_round_off(small: Study, evidence: Evidence) -> None:
    method = small.method.model_validate(small.method.document() | {"precision": "float32"})
    measured = evidence(small.model_copy(update={"method": method}))
    assert findings(measured.plan, measured).verdict is Verdict.HOLDS


def test_variance_of_one_wave_is_its_closed_form(small: Study) -> None:
    """a^2 / 2 exp(-2 D k^2 t) sinc^2: half the squared amplitude of the cell averages."""
    system = AdvectedField.model_validate(
        {"velocity_x": 1.0, "diffusivity": 0.01, "waves": [{"cycles_x": 2, "cycles_y": 0, "amplitude": 0.8}]}
    )
    (ours,) = exact_variances(system, 32, 16, [0.3])
    decay = np.exp(-2 * 0.01 * (4 * np.pi) ** 2 * 0.3)
    assert ours == pytest.approx(0.8**2 / 2 * decay * np.sinc(2 / 32) ** 2, rel=1e-12)
    closed = FieldVariance().exact(small.point(0))
    assert 0 < closed.tolerance < 1e-3 * closed.value
