"""Rounds of training as tasks: against centralised training, theory, faulty parties, privacy and compressed exchange."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm

from manybody.core.certificate import Finding, Verdict
from manybody.core.errors import InputError, StoreError, TaskError
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.federate.message import TENSOR, part, received
from manybody.federate.stages import aggregate, fit
from manybody.store.held import SECRET_BYTES, held, names, noise_secret
from manybody.study.certify import findings
from manybody.study.dump import dump_study
from manybody.study.expand import expand
from manybody.study.file import parse_study
from manybody.study.measure import Measured
from manybody.testing.check import verify_check

Federation = Callable[..., Study]
Evidence = Callable[..., Measured]
MEAN = {"name": "weighted-mean", "weighting": "equal"}
POISONED = {"faulty": 2, "fault": -10.0}


def found(measured: Measured) -> dict[str, Finding]:
    """The findings by the first words of their names."""
    return {finding.name.split(" at ")[0]: finding for finding in findings(measured.plan, measured).checks}


def tensors(measured: Measured, stage: str = "aggregate") -> list[np.ndarray]:
    run = measured.plan.realisations[0]
    return [part(measured.output(task), TENSOR)["coefficients"] for task in run.tasks if task.stage == stage]


# --- theory --------------------------------------------------------------------------------------------------------------


def test_one_step_a_round_is_centralised_gradient_descent(federation: Federation, evidence: Evidence) -> None:
    """The mean of the parties' steps, weighted by samples, is a step down the loss of all configurations together."""
    measured = evidence(federation())
    start = next(task for task in measured.plan.tasks if task.stage == "start")
    whitening = measured.output(start).arrays["agreed.whitening"]
    # All configurations that anybody trains on, in one place and in one sum.
    prepared = [measured.output(task) for task in measured.plan.tasks if task.stage == "prepare"][:3]
    seen = [np.arange(len(each.arrays["square"])) % 4 != 3 for each in prepared]
    hessian, linear = (
        np.concatenate([each.arrays[name][rows] for each, rows in zip(prepared, seen, strict=True)]).mean(axis=0)
        for name in ("hessian", "linear")
    )
    theta = np.zeros(12)
    for reached in tensors(measured):
        theta = theta - 0.3 * whitening @ (hessian @ (whitening @ theta) - linear)
        np.testing.assert_allclose(reached, theta, rtol=0, atol=1e-13 * np.abs(theta).max())  # sums of 12 x 12 products


@pytest.mark.parametrize(
    "method",
    [
        {"local_steps": 1},
        {"local_steps": 7, "rounds": 3},
        {"local_steps": 5, "rule": {"name": "fedprox", "mu": 0.8, "weighting": "capacity"}},
        {"local_steps": 2, "rule": MEAN},
    ],
    ids=["one-step", "drift", "fedprox-by-capacity", "equal"],
)
def test_training_ends_where_theory_has_it_and_as_fast(
    federation: Federation, evidence: Evidence, method: dict[str, Any]
) -> None:
    checked = found(evidence(federation(method=method)))
    assert checked["end of training"].verdict is Verdict.HOLDS
    assert checked["end of training"].tolerance < 1e-10
    assert checked["rate"].verdict is Verdict.HOLDS
    drift = checked["end of training"].evidence["drift"]
    # One step a round and weights by samples: the pooled solution itself, up to the condition of its equations.
    assert (drift < 1e-6) == (method == {"local_steps": 1})


def test_training_converges_to_the_pooled_solution(federation: Federation, evidence: Evidence) -> None:
    few, many = (found(evidence(federation(method={"rounds": rounds, "learning_rate": 0.6})))["loss left"] for rounds in (2, 60))
    assert few.value > 10 * many.value
    assert many.verdict is Verdict.HOLDS


def test_a_mean_by_the_wrong_weights_is_found_out(federation: Federation, evidence: Evidence) -> None:
    def equal(task: Task, inputs: Any, context: Any) -> Output:
        parameters = task.parameters | {"rule": MEAN}
        return aggregate(task.model_copy(update={"parameters": parameters}), inputs, context)

    assert found(evidence(federation(), aggregate=equal))["end of training"].verdict is Verdict.FAILS


def test_the_checks_keep_their_contract(federation: Federation, evidence: Evidence) -> None:
    def lazy(task: Task, inputs: Any, context: Any) -> Output:
        return Output(inputs["model"].arrays, {"samples": 1, "variance": 1.0, "loss": 0.0, "capacity": None})

    study = federation(method={"rounds": 30, "learning_rate": 0.6})
    verify_check(study.checks[0], evidence(study), evidence(study, fit=lazy))


# --- faulty parties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ({"name": "weighted-mean"}, Verdict.FAILS),
        ({"name": "trimmed-mean", "bad": 2}, Verdict.HOLDS),
        ({"name": "median"}, Verdict.HOLDS),
        ({"name": "krum", "bad": 2}, Verdict.HOLDS),
        ({"name": "krum", "bad": 2, "keep": 3}, Verdict.HOLDS),
        ({"name": "trimmed-mean", "bad": 1}, Verdict.FAILS),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "-".join(str(v) for v in getattr(value, "values", list)()),
)
def test_robust_rules_bear_what_they_promise(
    federation: Federation, evidence: Evidence, rule: dict[str, Any], verdict: Verdict
) -> None:
    """Two of seven send ten times the opposite: the mean goes astray, as does a rule that was promised one bad party."""
    method = {"rule": rule, "rounds": 15, "learning_rate": 0.9}
    checked = found(evidence(federation(POISONED, method, [{"name": "pooled", "excess": 0.05}], parties=7)))
    assert checked["loss left"].verdict is verdict


def test_theory_knows_of_faulty_parties_too(federation: Federation, evidence: Evidence) -> None:
    checked = found(evidence(federation(POISONED, {"rounds": 3}, parties=7)))
    assert checked["end of training"].verdict is Verdict.HOLDS
    assert "rate" not in checked  # nothing converges


def test_a_party_that_sends_nonsense_is_left_out_and_named(federation: Federation, evidence: Evidence) -> None:
    def bad(task: Task, inputs: Any, context: Any) -> Output:
        output = fit(task, inputs, context)
        if task.parameters["party"]["name"] != "graz":
            return output
        return Output({name: np.full_like(array, np.nan) for name, array in output.arrays.items()}, output.document)

    measured = evidence(federation(checks=["exact"]), fit=bad)
    last = [task for task in measured.plan.tasks if task.stage == "aggregate"][-1]
    assert measured.output(last).document["parties"] == ["bonn", "delft"]
    assert "NaN or infinite" in measured.output(last).document["refused"]["graz"]


# --- privacy -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MANYBODY_DATA", str(tmp_path / "held"))
    return tmp_path / "held"


def gaussian_delta(epsilon: float, mu: float) -> float:
    """delta(epsilon) of Gaussian mechanisms composed to mu = sqrt(T) / z. Balle and Wang, ICML 2018, theorem 8."""
    return float(norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * norm.cdf(-epsilon / mu - mu / 2))


@pytest.mark.parametrize("unit", ["node", "record"])
def test_the_certificate_states_what_was_spent(federation: Federation, evidence: Evidence, folder: Path, unit: str) -> None:
    pytest.importorskip("dp_accounting")
    method = {"rule": MEAN, "privacy": {"unit": unit, "clip": 1.0, "noise": 4.0, "delta": 1e-5}, "rounds": 4}
    measured = evidence(federation(method=method, checks=[{"name": "privacy", "largest_epsilon": 3.0}]))
    (finding,) = findings(measured.plan, measured).checks
    assert finding.verdict is Verdict.HOLDS
    assert f"one {unit} changes" in finding.claim
    # The accountant's bound on a grid of losses is from above, and tight to a few parts in 1,000.
    assert gaussian_delta(finding.value, math.sqrt(4) / 4) == pytest.approx(1e-5, rel=0.02)
    strict = measured.plan.study.checks[0].model_copy(update={"largest_epsilon": 1.0})
    assert strict.judge(measured, ())[0].verdict is Verdict.FAILS


def test_updates_leave_clipped_and_noised_and_nothing_else_does(federation: Federation, evidence: Evidence, folder: Path) -> None:
    method = {"rule": MEAN, "privacy": {"clip": 0.5, "noise": 2.0}, "rounds": 20}
    study = federation(method=method, checks=["privacy"])
    measured = evidence(study)
    assert (folder / "noise.secret").stat().st_mode & 0o777 == 0o600
    fits = [task for task in measured.plan.tasks if task.stage == "fit"]
    for task in fits:
        assert set(measured.output(task).document) == {"capacity"}  # no loss, no number of samples
    models = [task for task in measured.plan.tasks if task.stage in ("start", "aggregate")]
    by_round = {task.digest: part(measured.output(task), TENSOR)["coefficients"] for task in models}
    changes = [part(measured.output(task), TENSOR)["coefficients"] - by_round[task.inputs["model"]] for task in fits]
    noise = np.concatenate(changes)
    # 720 values of deviation z C = 1 and a mean square of at most 0.25 / 12 more: chi-squared within 5 standard errors.
    assert 1 - 5 * math.sqrt(2 / noise.size) < np.mean(noise**2) < 1.03 + 5 * math.sqrt(2 / noise.size)


def test_noise_is_that_of_the_secret_and_of_the_update(
    federation: Federation, compute: Any, node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same update gets the same noise on one node, another on a node with another secret, and so does another update."""
    study = federation(method={"rule": MEAN, "privacy": {"clip": 1.0, "noise": 2.0}, "rounds": 1}, checks=["privacy"])
    monkeypatch.setenv("MANYBODY_DATA", str(tmp_path / "a"))
    tasks = expand(study).tasks
    results = compute(tasks)
    task = next(task for task in tasks if task.stage == "fit")
    inputs = {name: results[digest] for name, digest in task.inputs.items()}
    other = dict(inputs["data"].arrays)
    other["linear"] = other["linear"] * (1 + 1e-9)

    def sent(data: Output) -> np.ndarray:
        return fit(task, inputs | {"data": data}, node).arrays["tensor.coefficients"]

    first, again, near = sent(inputs["data"]), sent(inputs["data"]), sent(replace(inputs["data"], arrays=other))
    monkeypatch.setenv("MANYBODY_DATA", str(tmp_path / "b"))
    elsewhere = sent(inputs["data"])
    np.testing.assert_array_equal(first, again)
    assert np.linalg.norm(first - near) > 0.5  # twelve values, each the difference of two of deviation 2
    assert np.linalg.norm(first - elsewhere) > 0.5


def test_replicas_of_what_a_secret_enters_are_refused(federation: Federation) -> None:
    study = federation(method={"rule": MEAN, "privacy": {}}, checks=["privacy", "replication"])
    with pytest.raises(InputError, match=r"`fit` of federated-learning.*secret of the node.*Leave `replication` out"):
        expand(study)
    plan = expand(study.model_copy(update={"checks": study.checks[:1]}))
    assert plan.alone == {task.digest for task in plan.tasks if task.stage == "fit"}
    assert not expand(federation()).alone


def test_without_the_accountant_nothing_is_begun(federation: Federation, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_study(federation(method={"rule": MEAN, "privacy": {}}, checks=["privacy"])))
    program = "import sys; sys.modules['dp_accounting'] = None; from manybody.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"MANYBODY_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "pip install 'manybody[privacy]'" in done.stderr
    assert not (tmp_path / "home").exists()


# --- compressed exchange -------------------------------------------------------------------------------------------------


def test_the_bound_of_an_exchange_holds_and_the_answer_hardly_changes(federation: Federation, evidence: Evidence) -> None:
    pytest.importorskip("zfpy")
    checked = found(evidence(federation(method={"exchange": {"bound": 1e-5}}, checks=["exchange", "pooled"])))
    assert {name: finding.verdict for name, finding in checked.items() if name != "loss left"} == {
        "error of the exchange": Verdict.HOLDS,
        "effect of the exchange": Verdict.HOLDS,
        "end of training": Verdict.HOLDS,
        "rate": Verdict.HOLDS,
    }
    assert 0 < checked["error of the exchange"].value <= 1e-5
    assert checked["error of the exchange"].evidence["measured again"] > 0


def test_an_exchange_that_lies_about_its_error_is_found_out(federation: Federation, evidence: Evidence) -> None:
    pytest.importorskip("zfpy")

    def lying(task: Task, inputs: Any, context: Any) -> Output:
        asked = task.parameters["exchange"]
        coarse = asked and {"bound": 1e-2}
        output = fit(task.model_copy(update={"parameters": task.parameters | {"exchange": coarse}}), inputs, context)
        return (
            output
            if not asked
            else replace(output, document=output.document | {"exchange": output.document["exchange"] | {"error": 0.0}})
        )

    study = federation(method={"exchange": {"bound": 1e-5}}, checks=["exchange"])
    assert found(evidence(study, fit=lying))["error of the exchange"].verdict is Verdict.FAILS


def test_a_message_that_claims_too_much_is_refused(federation: Federation, compute: Any) -> None:
    tasks = expand(federation(method={"exchange": {"bound": 0}}, checks=["exchange"])).tasks
    results = compute(tasks)
    output = results[next(task for task in tasks if task.stage == "fit").digest]
    before = part(results[next(task for task in tasks if task.stage == "start").digest], TENSOR)
    assert received(output, before, "bonn")["coefficients"].shape == (12,)
    with pytest.raises(InputError, match="an array of at most 8 bytes"):
        received(output, {"coefficients": np.zeros(1)}, "bonn")
    with pytest.raises(TaskError, match="expected a message for each of other"):
        received(output, {"other": np.zeros(12)}, "bonn")


# --- data that a node holds ----------------------------------------------------------------------------------------------


def test_held_data_train_as_others_do_and_stay_where_they_are(
    federation: Federation, compute: Any, node: Any, folder: Path
) -> None:
    made = federation()
    results = compute(expand(made).tasks)
    tasks = [task for task in expand(made).tasks if task.stage == "fit"]
    data = results[tasks[0].inputs["data"]]
    folder.mkdir()
    np.savez(folder / "bonn-2026.npz", **{name: data.arrays[name] for name in ("positions", "box", "energy", "forces")})
    institutions = [{"name": "bonn", "held": "bonn-2026"}, *made.system.document()["institutions"][1:]]
    study = federation({"institutions": institutions}, checks=["exact"])
    own = expand(study)
    fits = [task for task in own.tasks if task.stage == "fit" and task.parameters["party"]["held"]]
    assert all("data" not in task.inputs and task.needs.data == ("bonn-2026",) for task in fits)
    assert names() == {"bonn-2026"}
    assert own.alone == {task.digest for task in fits}, "nobody else is asked whether they are right"
    outputs = compute(own.tasks)
    ours = outputs[next(task for task in own.tasks if task.stage == "fit").digest]
    np.testing.assert_array_equal(ours.arrays["tensor.coefficients"], results[tasks[0].digest].arrays["tensor.coefficients"])
    assert len(ours.document["held"]) == 64
    assert set(ours.arrays) == {"tensor.coefficients"}
    method = {"rule": MEAN, "privacy": {}, "rounds": 1}
    private = expand(federation({"institutions": institutions}, method, ["privacy"]))
    secret = compute(private.tasks)[next(task for task in private.tasks if task.stage == "fit").digest]
    assert secret.document["held"] != ours.document["held"]  # a plain digest would confirm a guess at the data
    with pytest.raises(InputError, match="only the nodes of bonn hold"):
        expand(federation({"institutions": institutions}))


def test_a_node_without_the_data_says_that_another_may_have_them(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"Expected bonn\.npz or bonn\.extxyz in .*; got neither"):
        held("bonn")
    folder.mkdir()
    (folder / "elsewhere.npz").write_bytes(b"")
    (folder / "bonn.npz").symlink_to(folder / "elsewhere.npz")
    assert names() == {"elsewhere"}
    with pytest.raises(StoreError, match="got neither"):
        held("bonn")


@given(st.text(max_size=80))
def test_names_of_held_data_lead_nowhere_else(name: str) -> None:
    """A name of anything but letters, digits, `-` and `_` is refused before a file is looked for."""
    simple = 0 < len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name) and name[0] not in "-_"
    with pytest.raises(StoreError, match="got neither" if simple else "Expected a name of letters"):
        held(name)


def test_a_secret_is_made_once(folder: Path) -> None:
    first = noise_secret()
    assert len(first) == SECRET_BYTES
    assert noise_secret() == first
    (folder / "noise.secret").write_bytes(b"short")
    with pytest.raises(StoreError, match="Expected 32 bytes"):
        noise_secret()


# --- wrong studies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "method", "checks", "said"),
    [
        ({}, {"rule": {"name": "krum", "bad": 2}}, ["pooled"], "at least 7 parties for krum"),
        ({}, {"rule": {"name": "trimmed-mean", "bad": 2}}, ["pooled"], "at least 5 parties"),
        ({}, {"rule": "krom"}, ["pooled"], "Did you mean `krum`"),
        ({}, {"privacy": {}}, ["privacy"], "Give the rule `weighting: equal`"),
        ({}, {"privacy": {}, "rule": MEAN}, ["pooled"], "Add `- privacy`"),
        ({}, {"privacy": {"unit": "record"}, "rule": MEAN, "local_steps": 2}, ["privacy"], "Take one step a round"),
        ({}, {"exchange": {}}, ["pooled"], "Add `- exchange`"),
        ({"faulty": 4}, {}, ["pooled"], "at most the 3 institutions"),
        ({"cutoff": 2.4}, {}, ["pooled"], "at most half the box"),
        ({"institutions": [{"name": "a", "held": "x"}, {"name": "a", "held": "y"}]}, {}, ["exact"], "names that differ"),
        ({"institutions": [{"name": "a", "held": "../x"}, {"name": "b", "held": "y"}]}, {}, ["exact"], "should match pattern"),
        ({"institutions": [{"name": "a"}, {"name": "b", "held": "y"}]}, {}, ["exact"], "Say where its data come from"),
        ({"model": {"name": "quadratic"}}, {}, ["pooled"], "radial-basis"),
        (
            {"institutions": [{"name": "a", "held": "x"}, {"name": "b", "held": "y"}]},
            {"rule": {"name": "weighted-mean", "weighting": "capacity"}},
            ["exact"],
            "Give each `capacity:`",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    federation: Federation, system: dict[str, Any], method: dict[str, Any], checks: list[str], said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        federation(system, method, checks)
    assert said in str(refused.value)


def test_a_file_with_nested_specs_is_read_and_written(federation: Federation) -> None:
    study = federation({"model": {"name": "pair-network", "hidden": 4}}, {"rule": {"name": "fedprox", "mu": 0.5}})
    assert parse_study(dump_study(study), "study.yaml").digest == study.digest
    settings = ["sweep=[{method.rule: {name: krum, bad: 0}}, {method.rule: fedadam}]"]
    swept = parse_study(dump_study(federation(parties=7)), "study.yaml", settings)
    assert [swept.point(index).label for index in range(2)] == ["rule krum (bad 0)", "rule fedadam"]
    assert parse_study(dump_study(swept), "study.yaml").digest == swept.digest
    with pytest.raises(InputError, match=r"expected `name: \.\.` with one of fedadagrad.*Did you mean `krum`"):
        parse_study(dump_study(study), "study.yaml", ["method.rule=krom"])
    with pytest.raises(InputError, match=r"a field of method\.rule; got `bda`\. Did you mean `bad`"):
        parse_study(dump_study(study), "study.yaml", ["method.rule={name: krum, bda: 1}"])
