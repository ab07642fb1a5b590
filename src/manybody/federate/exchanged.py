"""Exchange: compressed updates are within their bound, and what that did to the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Realisation
from manybody.core.task import Task
from manybody.federate.message import TENSOR, part, received
from manybody.federate.spec import Exchange, FederatedLearning
from manybody.federate.tensors import NamedTensors


class BoundedExchange(CheckSpec):
    """At every point that compresses: the error of what arrived, and of the final parameters.

    The last round of a run is trained again from the same parameters and sent whole, so the error is measured against what
    was meant; of the earlier rounds it is what the senders measured. The answer is compared with that of a run that sends
    everything whole. With privacy no two runs have the same noise, so then the senders' word is all there is.
    """

    summary: ClassVar[str] = "compressed updates are within their bound, and the answer hardly changes"
    kind: ClassVar[CheckKind] = "invariant"
    methods: ClassVar[tuple[str, ...]] = ("federated-learning",)

    name: Literal["exchange"] = "exchange"
    effect: float = Field(1e-4, gt=0, description="largest change of the final parameters, relative to their norm")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """For each run: its last round sent whole, and a run that sends everything whole."""
        found: list[Task] = []
        for run in _compressed(plan):
            if _method(run).privacy is None:
                found += [*_whole_fits(run), *_whole_run(run, plan.study.seed)]
        return tuple({task.digest: task for task in found}.values())

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One or two findings for each run."""
        return [finding for run in _compressed(evidence.plan) for finding in self._findings(evidence, run)]

    def _findings(self, evidence: Evidence, run: Realisation) -> Iterator[Finding]:
        exchange, private = _method(run).exchange, _method(run).privacy is not None
        assert exchange is not None
        yield _bounded(evidence, run, exchange, 0.0 if private else _measured(evidence, run))
        if not private:
            yield self._effect(evidence, run)

    def _effect(self, evidence: Evidence, run: Realisation) -> Finding:
        whole = [task for task in _whole_run(run, evidence.plan.study.seed) if task.stage == "aggregate"][-1]
        ours, exact = (part(evidence.output(task), TENSOR) for task in (_models(run)[-1], whole))
        norm = math.sqrt(math.fsum(float(np.sum(exact[name].astype(np.float64) ** 2)) for name in exact))
        value = math.sqrt(math.fsum(float(np.sum((ours[name].astype(np.float64) - exact[name]) ** 2)) for name in exact)) / norm
        return Finding(
            name=f"effect of the exchange at {run.point.label}",
            kind="invariant",
            claim=f"the final parameters differ by {value:.2g} of their norm from those of a run that sends everything whole",
            value=value if math.isfinite(value) else None,
            tolerance=self.effect,
            tolerance_from="what the study allows (`effect`)",
            verdict=judge(value, self.effect),
            evidence={"norm": norm},
        )


def _bounded(evidence: Evidence, run: Realisation, exchange: Exchange, measured: float) -> Finding:
    told = [evidence.output(task).document["exchange"] for task in run.tasks if task.stage == "fit"]
    value = max(measured, *(float(each["error"]) for each in told))
    plain, sent = (sum(int(each[name]) for each in told) for name in ("plain_bytes", "sent_bytes"))
    # The receiver adds a change to parameters of up to a size whose rounding is part of what is measured.
    rounding = 4 * np.finfo(np.float64).eps * max(_largest(part(evidence.output(task), TENSOR)) for task in _models(run))
    return Finding(
        name=f"error of the exchange at {run.point.label}",
        kind="invariant",
        claim=f"no value of {len(told)} updates arrived further than the bound from what was sent; {sent} bytes for {plain}",
        value=value,
        tolerance=exchange.bound + rounding,
        tolerance_from=f"the bound that the method asks for, {exchange.bound:g}, and the rounding of parameters",
        verdict=judge(value, exchange.bound + rounding),
        evidence={"sent_bytes": sent, "plain_bytes": plain, "measured again": measured},
    )


def _measured(evidence: Evidence, run: Realisation) -> float:
    """The largest error of the last round's updates, against the same training sent whole."""
    before = part(evidence.output(_models(run)[-2]), TENSOR)
    errors = []
    for fit, whole in zip(_last_fits(run), _whole_fits(run), strict=True):
        arrived, meant = received(evidence.output(fit), before, fit.label), part(evidence.output(whole), TENSOR)
        errors += [float(np.max(np.abs(arrived[name] - meant[name]), initial=0.0)) for name in meant]
    return max(errors)


def _whole_fits(run: Realisation) -> list[Task]:
    return [fit.model_copy(update={"parameters": fit.parameters | {"exchange": None}}) for fit in _last_fits(run)]


def _last_fits(run: Realisation) -> list[Task]:
    return [task for task in run.tasks if task.stage == "fit" and task.parameters["round"] == _method(run).rounds]


def _whole_run(run: Realisation, seed: int) -> tuple[Task, ...]:
    method = _method(run).model_copy(update={"exchange": None})
    return method.plan(run.point.system, seed, run.repeat)[0]


def _models(run: Realisation) -> list[Task]:
    return [task for task in run.tasks if task.stage in ("start", "aggregate")]


def _largest(tensors: NamedTensors) -> float:
    return max((float(np.max(np.abs(tensor), initial=0.0)) for tensor in tensors.values()), default=0.0)


def _compressed(plan: Plan) -> list[Realisation]:
    runs = [run for run in plan.realisations if isinstance(run.point.method, FederatedLearning)]
    return [run for run in runs if _method(run).exchange is not None]


def _method(run: Realisation) -> FederatedLearning:
    assert isinstance(run.point.method, FederatedLearning)
    return run.point.method
