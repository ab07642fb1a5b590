"""What neighbours exchange may travel compressed: within its bound, stated, and never more than asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manybody.core.certificate import Finding, Verdict
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.fields import stages
from manybody.engines.fields.spec import AdvectedField, FiniteVolume
from manybody.numerics.rounds import Costs
from manybody.store.encoding import encode
from manybody.study.certify import findings
from manybody.study.file import load_study
from manybody.study.measure import Measured

pytest.importorskip("zfpy", reason="the extra `compress` is not installed here")

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"
Compute = Callable[..., dict[str, Output]]
Evidence = Callable[..., Measured]


def study(*settings: str) -> Study:
    small = ("rows=64", "columns=64", "time_step=0.01", "duration=0.4", "steps_per_round=4")
    return load_study(GALLERY, [f"method.{setting}" for setting in (*small, *settings)])


def field(asked: Study, compute: Compute) -> Output:
    method, system = asked.method, asked.system
    tasks, measured = method.plan(system, 0, 0)
    return compute(method, tasks)[measured[0].digest]


def stated(measured: Measured) -> dict[str, Finding]:
    found = {finding.name.split(" at ")[0]: finding for finding in findings(measured.plan, measured).checks}
    return {name: finding for name, finding in found.items() if "exchange" in name}


@pytest.mark.parametrize("bound", [1e-5, 1e-8])
def test_the_answer_moves_by_no_more_than_what_is_stated(compute: Compute, evidence: Evidence, bound: float) -> None:
    plain, coded = study(), study(f"exchange={{bound: {bound}, when: always}}")
    exact, moved = field(plain, compute), field(coded, compute)
    difference = moved.arrays["field"] - exact.arrays["field"]
    found = stated(evidence(coded))
    kept = found["bound of the exchange"]
    assert kept.verdict is Verdict.HOLDS
    assert kept.value is not None
    assert 0 < kept.value <= kept.tolerance == bound
    effect = found["effect of the exchange"]
    assert effect.value is not None
    spread = np.sqrt(exact.arrays["variance"][0])
    assert 0 < np.sqrt(np.mean(difference**2)) / spread <= effect.value


def test_a_study_with_a_compressed_exchange_holds(evidence: Evidence) -> None:
    """Every other check too: conservation and exactness allow for the bound, and say so."""
    measured = evidence(study("exchange={bound: 1e-8, when: always}"))
    certificate = findings(measured.plan, measured)
    assert certificate.verdict is Verdict.HOLDS
    assert sum("the bound of the exchange" in finding.tolerance_from for finding in certificate.checks) == 3


def test_a_bound_that_spoils_the_answer_fails(evidence: Evidence) -> None:
    """The largest errors of zfp are below what it was told, so that a bound far too wide is taken."""
    found = stated(evidence(study("exchange={bound: 0.05, when: always}")))
    assert found["bound of the exchange"].verdict is Verdict.HOLDS
    assert found["effect of the exchange"].verdict is Verdict.FAILS


def test_a_message_that_breaks_the_bound_fails(evidence: Evidence) -> None:
    def careless(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        wide = task.model_copy(update={"parameters": task.parameters | {"bound": 1e-4}})
        return stages.advance(wide, inputs, context)

    found = stated(evidence(study("exchange={bound: 1e-9, when: always}"), advance=careless))
    assert found["bound of the exchange"].verdict is Verdict.FAILS


def test_without_an_exchange_nothing_is_stated_and_nothing_changes(compute: Compute, evidence: Evidence) -> None:
    never = study("exchange={bound: 1e-8, when: never}")
    assert stated(evidence(never)) == {}
    assert encode(field(never, compute)) == encode(field(study(), compute))


def test_a_round_reads_only_messages(compute: Compute, node: Any) -> None:
    """What a neighbour is sent has a fraction of the bytes of its rows, and suffices."""
    asked = study("exchange={bound: 1e-6, when: always}", "rows=128", "columns=128", "time_step=0.005")
    tasks, _ = asked.method.plan(asked.system, 0, 0)
    task = next(task for task in tasks if task.stage == "advance")
    results = compute(asked.method, tuple(task for task in tasks if task.stage == "start"))
    whole = {name: results[digest] for name, digest in task.inputs.items()}
    cut = dict(whole)
    for name, message in (("west", "east_edge"), ("east", "west_edge")):
        assert FiniteVolume.reads(task, name) == {message: slice(None)}
        cut[name] = Output({message: whole[name].arrays[message]})
        assert cut[name].arrays[message].nbytes < 32 * 128 * 8 / 3
    assert encode(stages.advance(task, cut, node)) == encode(stages.advance(task, whole, node))


def test_auto_compresses_on_slow_links_only() -> None:
    def bound(**costs: float) -> float:
        method = FiniteVolume.model_validate({"rows": 1024, "exchange": {"bound": 1e-6}, "costs": Costs(**costs)})
        return method.bound

    assert bound(bytes_per_s=1e7) == 1e-6
    assert bound(bytes_per_s=1e9) == 0.0
    open_one = FiniteVolume.model_validate({"rows": 1024, "exchange": {"bound": 1e-6}, "steps_per_round": 4})
    assert open_one.is_open()
    for costs, when in ((Costs(bytes_per_s=1e7), "always"), (Costs(bytes_per_s=1e9), "never")):
        settled = open_one.settled(costs)
        assert settled.exchange is not None
        assert settled.exchange.when == when
        assert not settled.is_open()
    assert isinstance(study().system, AdvectedField)
