"""Privacy: what the updates of a party have told of its data, within the bound that the study sets."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.federate.privacy import Accountant, GaussianRounds, PrivacyAccount
from manybody.federate.spec import FederatedLearning, Privacy

SOURCES = {
    "rdp": "Renyi accountant of dp-accounting (I. Mironov, arXiv:1702.07476)",
    "pld": "privacy loss distributions of dp-accounting (arXiv:1906.03049)",
}


class PrivacyBudget(CheckSpec):
    """(epsilon, delta) of every point that clips and noises: what a party's data change in all that it sends.

    Every party sends in every round and trains on all its data, so nothing is gained by sampling.
    """

    summary: ClassVar[str] = "what updates tell of a party's data, as (epsilon, delta), is within a bound"
    kind: ClassVar[CheckKind] = "invariant"
    methods: ClassVar[tuple[str, ...]] = ("federated-learning",)

    name: Literal["privacy"] = "privacy"
    largest_epsilon: float = Field(10.0, gt=0, description="largest epsilon that may be spent")
    accountant: Accountant = Field("pld", description="`pld`, the tighter bound, or `rdp`")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; but without the accountant nothing is begun."""
        if find_spec("dp_accounting") is None and _private(plan):
            remedy = "Install it: pip install 'manybody[privacy]'."
            raise InputError(Problem("check `privacy`", "the package dp-accounting", "nothing of that name", remedy))
        return ()

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each point."""
        return [self._finding(point, method, privacy) for point, method, privacy in _private(evidence.plan)]

    def _finding(self, point: Point, method: FederatedLearning, privacy: Privacy) -> Finding:
        rounds = GaussianRounds(sampling=1.0, noise_multiplier=privacy.noise, rounds=method.rounds)
        spend = PrivacyAccount(unit=privacy.unit).after(rounds).spend(privacy.delta, self.accountant)
        return Finding(
            name=f"privacy at {point.label}",
            kind="invariant",
            claim=f"{spend.claim()}; epsilon {spend.epsilon:.4g} at delta {spend.delta:g} is spent",
            value=spend.epsilon,
            tolerance=self.largest_epsilon,
            tolerance_from="the most that the study lets be spent (`largest_epsilon`)",
            source=SOURCES[self.accountant],
            verdict=judge(spend.epsilon, self.largest_epsilon),
            evidence=spend.document() | {"clip": privacy.clip},
        )


def _private(plan: Plan) -> list[tuple[Point, FederatedLearning, Privacy]]:
    """The points that ask for privacy."""
    methods = [(point, point.method) for point in plan.points if isinstance(point.method, FederatedLearning)]
    return [(point, method, method.privacy) for point, method in methods if method.privacy is not None]
