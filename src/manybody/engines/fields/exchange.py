"""What a compressed exchange between neighbours did to a field, as findings of the certificate. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manybody.core.certificate import Finding, judge
from manybody.core.task import Output
from manybody.engines.fields.known_answers import exact_averages, truncation_errors
from manybody.engines.fields.parts import EXCHANGE_ERROR

if TYPE_CHECKING:
    from manybody.engines.fields.spec import AdvectedField, FiniteVolume


def exchange_findings(method: FiniteVolume, system: AdvectedField, outputs: Sequence[Output], which: str) -> list[Finding]:
    """That every message of a run kept the bound, and how little of the answer's own error that makes at most."""
    error = float(outputs[-1].document[EXCHANGE_ERROR])
    steps = method.stride * method.samples
    spread = float(exact_averages(system, method.rows, method.columns, 0.0).std())
    truncation = float(truncation_errors(system, method.rows, method.columns, method.time_step, [steps])[0]) / spread
    effect = method.exchange_effect(error, steps) / spread
    rounds = -(-method.stride // method.split.steps_per_round) * method.samples
    messages = 2 * method.parts * (rounds + 1)
    return [
        Finding(
            name=f"bound of the exchange at {which}",
            kind="invariant",
            claim=f"in all {messages} messages between neighbours every value is within {method.bound:g} of what it was",
            value=error,
            tolerance=method.bound,
            tolerance_from="the study's `exchange.bound`; each sender decoded its message and measured before it went out",
            verdict=judge(error, method.bound),
            evidence={"messages": messages, "largest error": error},
        ),
        Finding(
            name=f"effect of the exchange at {which}",
            kind="invariant",
            claim="what the exchange lost moves the field by less than the scheme's own truncation error",
            value=effect,
            tolerance=truncation,
            tolerance_from="the truncation error at the end, known mode by mode; the effect is at most the largest error of a "
            "message added up over all rounds, for no mode grows; both over the standard deviation at the start",
            verdict=judge(effect, truncation),
            evidence={"rounds": rounds, "effect": effect, "truncation": truncation},
        ),
    ]
