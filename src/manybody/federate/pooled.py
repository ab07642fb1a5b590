"""Pooled: what federated training ends with, beside what training on all data in one place would have given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.learning import LearningProblem, Party
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Realisation
from manybody.core.task import Output, Task
from manybody.federate.message import TENSOR, part
from manybody.federate.quadratic import Quadratic, Rounds
from manybody.federate.quadratic import pooled as pooled_loss
from manybody.federate.spec import FederatedLearning
from manybody.federate.tensors import Tensor

EPSILON = float(np.finfo(np.float64).eps)
SOURCE = "least squares by normal equations; T. Li et al., arXiv:1812.06127"


class PooledSolution(CheckSpec):
    """A quadratic loss is known in closed form: its minimum over all data of honest parties, and the way there.

    At every point: how much of the loss that can be gained was not. Where updates are only averaged, also that training
    ended where theory says, to round-off, and that it came there as fast.
    """

    summary: ClassVar[str] = "federated training against the pooled least-squares solution, and its rate against theory"
    kind: ClassVar[CheckKind] = "reference"
    methods: ClassVar[tuple[str, ...]] = ("federated-learning",)

    name: Literal["pooled"] = "pooled"
    excess: float = Field(0.01, gt=0, description="largest share of the loss to be gained that may be left")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """One for each run: the losses of all parties, from their prepared data."""
        return tuple(_method(run).pooled(run) for run in _federated(plan))

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """Up to three findings for each run."""
        runs = zip(_federated(evidence.plan), tasks, strict=True)
        return [finding for run, task in runs for finding in self._findings(evidence, run, evidence.output(task))]

    def _findings(self, evidence: Evidence, run: Realisation, known: Output) -> Iterator[Finding]:
        label = run.point.label if run.repeat == 0 else f"{run.point.label}, run {run.repeat + 1}"
        if not known.arrays:
            yield _undecided(label, self.excess)
            return
        theory = Theory.of(run, known)
        reached = [_flat(evidence.output(task)) for task in run.tasks if task.stage in ("start", "aggregate")]
        yield self._excess(label, theory, reached)
        if theory.rounds is not None:
            yield _end(label, theory, theory.rounds, reached, _method(run))
            if all(party.multiplier == 1 for party in theory.parties):
                yield _rate(label, theory.rounds, reached, _method(run))

    def _excess(self, label: str, theory: Theory, reached: list[Tensor]) -> Finding:
        best = theory.pooled.loss(theory.pooled.minimum)
        first, last = (theory.pooled.loss(theta) - best for theta in (reached[0], reached[-1]))
        value = last / first
        honest = sum(party.multiplier == 1 for party in theory.parties)
        return Finding(
            name=f"loss left at {label}",
            kind="reference",
            claim=f"on the data of the {honest} honest of {len(theory.parties)} parties, {value:.2g} of what pooling would gain "
            f"is not gained: loss {last + best:.4g}, pooled {best:.4g}, start {first + best:.4g}",
            value=value if math.isfinite(value) else None,
            tolerance=self.excess,
            tolerance_from="the share that the study allows (`excess`); the pooled loss is exact",
            source=SOURCE,
            verdict=judge(value, self.excess),
            evidence={"loss": _plain(last + best), "pooled": best, "start": first + best},
        )


@dataclass(frozen=True)
class Theory:
    """What is known of a run: parties, the loss of the honest ones together, and what a round does, if it is affine."""

    parties: tuple[Party, ...]
    pooled: Quadratic
    rounds: Rounds | None

    @classmethod
    def of(cls, run: Realisation, known: Output) -> Theory:
        """From the output of `pool`."""
        problem, method = run.point.system, _method(run)
        assert isinstance(problem, LearningProblem)
        parties = problem.parties
        parts = {
            party.name: Quadratic(
                known.arrays[f"hessian/{party.name}"],
                known.arrays[f"linear/{party.name}"],
                float(known.arrays[f"square/{party.name}"]),
            )
            for party in parties
        }
        weights = {party.name: _weight(party, method, known) for party in parties}
        honest = [party.name for party in parties if party.multiplier == 1] or [party.name for party in parties]
        total = math.fsum(weights[name] for name in honest)
        pooled = pooled_loss([parts[name] for name in honest], [weights[name] / total for name in honest])
        return cls(parties, pooled, _rounds(method, parties, parts, weights))


def _rounds(
    method: FederatedLearning, parties: tuple[Party, ...], parts: dict[str, Quadratic], weights: dict[str, float]
) -> Rounds | None:
    """The map of a round, where it is one: a mean with weights that stay, and no noise."""
    averages = method.rule.name in ("weighted-mean", "fedprox") and method.rule.weighs_by != "inverse-variance"
    if not averages or getattr(method.rule, "largest_share", 1.0) < 1 or method.privacy is not None:
        return None
    total = math.fsum(weights.values())
    names = [party.name for party in parties]
    shares = [weights[name] / total for name in names]
    return Rounds.of([parts[name] for name in names], shares, [party.multiplier for party in parties], method.training)


def _weight(party: Party, method: FederatedLearning, known: Output) -> float:
    match method.rule.weighs_by:
        case "equal":
            return 1.0
        case "capacity":
            assert party.capacity is not None, "refused when the study was read"
            return party.capacity
        case _:
            return float(known.document["samples"][party.name])


def _end(label: str, theory: Theory, rounds: Rounds, reached: list[Tensor], method: FederatedLearning) -> Finding:
    """Where training ended, against the power of the round's matrix."""
    count, size = len(reached) - 1, len(reached[0])
    expected = rounds.after(reached[0], count)
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float64).tiny))
    value = float(np.abs(reached[-1] - expected).max()) / scale
    # Every step rounds sums of `size` products a few times over, all errors to one side; both ways of computing do.
    tolerance = 8 * EPSILON * size * count * method.local_steps * max(1.0, rounds.rate)
    because = f"round-off of {count} rounds of {method.local_steps} steps in double precision"
    if method.exchange is not None:
        tolerance += method.exchange.bound * math.sqrt(size) * count / scale
        because += f", and {count} exchanges with errors up to {method.exchange.bound:g} that no later round enlarges"
    drift = float(np.linalg.norm(rounds.fixed_point - theory.pooled.minimum) / np.linalg.norm(theory.pooled.minimum))
    return Finding(
        name=f"end of training at {label}",
        kind="reference",
        claim=f"training ends where theory has it, relative to the largest parameter; without end it would lead {drift:.2g} of "
        "the pooled solution's norm away from that solution",
        value=value if math.isfinite(value) else None,
        tolerance=tolerance,
        tolerance_from=because,
        source=SOURCE,
        verdict=judge(value, tolerance),
        evidence={"drift": _plain(drift), "rate": rounds.rate, "largest parameter": _plain(scale)},
    )


def _rate(label: str, rounds: Rounds, reached: list[Tensor], method: FederatedLearning) -> Finding:
    """The slowest round but for those at round-off or at the error of an exchange, against the norm of the round's matrix."""
    goal, bound = rounds.fixed_point, rounds.rate
    distances = [float(np.linalg.norm(theta - goal)) for theta in reached]
    # Below these, distances are round-off or the errors of an exchange, of up to its bound in every value and round.
    floor, margin = 1e8 * EPSILON * float(np.linalg.norm(goal)) * len(goal), 1e-6
    if method.exchange is not None:
        floor, margin = floor + 100 * method.exchange.bound * math.sqrt(len(goal)), 0.01
    factors = [after / before for before, after in pairwise(distances) if after > floor]
    value = max(factors, default=0.0)
    mean = (distances[-1] / distances[0]) ** (1 / (len(distances) - 1)) if distances[0] > 0 else 0.0
    tolerance = bound + margin
    return Finding(
        name=f"rate at {label}",
        kind="reference",
        claim=f"every round takes the distance to the fixed point to at most {bound:.6g} of itself, {mean:.4g} on average",
        value=value,
        tolerance=tolerance,
        tolerance_from=f"the norm of the round's matrix, from the curvature of all losses, and {margin:g} for errors",
        source=SOURCE,
        verdict=judge(value, tolerance) if bound < 1 else Verdict.FAILS,
        evidence={"factors": factors},
    )


def _undecided(label: str, tolerance: float) -> Finding:
    return Finding(
        name=f"loss left at {label}",
        kind="reference",
        claim="training gains what pooling would gain: unknown, for this model has no closed form",
        value=None,
        tolerance=tolerance,
        tolerance_from="the share that the study allows (`excess`)",
        verdict=Verdict.UNDECIDED,
    )


def _federated(plan: Plan) -> list[Realisation]:
    return [run for run in plan.realisations if isinstance(run.point.method, FederatedLearning)]


def _method(run: Realisation) -> FederatedLearning:
    assert isinstance(run.point.method, FederatedLearning)
    return run.point.method


def _flat(output: Output) -> Tensor:
    """All tensors by name, flattened."""
    tensors = part(output, TENSOR)
    return np.concatenate([np.asarray(tensors[name], dtype=np.float64).reshape(-1) for name in sorted(tensors)])


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
