"""Compare: whether two nodes found the same, by bits where they must be equal, else by what the study measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from manybody.core.certificate import Verdict
from manybody.core.protocols import Estimate
from manybody.core.study import Plan, Point
from manybody.core.task import Output
from manybody.network.segments import observables_agree
from manybody.store.objects import ObjectStore
from manybody.study.audit import Answer, Comparison
from manybody.study.measure import estimate
from manybody.study.structure import signature

FALSE_ALARM = 1e-6  # with which honest nodes of different classes may be held apart; over all that a study measures
LEAST_SAMPLES = 16.0  # independent ones, for an error bar that can be relied on


@dataclass
class Comparing:
    """Compares answers of nodes.

    Nodes of one class of machine (the same versions on the same processor) give the same bits, so anything else is a
    disagreement. Between classes a chaotic run may take another course: then what the study measures in each must agree
    within the error bars (`network.segments.observables_agree`). Where that cannot be told it is undecided.
    """

    plan: Plan
    objects: ObjectStore
    _points: dict[str, Point] = field(default_factory=dict)
    _found: dict[tuple[str, str, bool], Comparison] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know at which point of the study each task that carries what is measured is."""
        self._points = {task.digest: run.point for run in self.plan.realisations for task in run.measured}

    def __call__(self, one: Answer, other: Answer) -> Comparison:
        """Whether two answers to one question agree."""
        if one.result == other.result:
            return Comparison(Verdict.HOLDS, "bits")
        alike = one.node.architecture == other.node.architecture != ""
        first, second = sorted((one.result, other.result))
        asked = (first, second, alike)
        if asked not in self._found:
            self._found[asked] = Comparison(Verdict.FAILS, "bits") if alike else self._by_meaning(one, first, second)
        return self._found[asked]

    def _by_meaning(self, asked: Answer, first: str, second: str) -> Comparison:
        one, other = self.objects.get(first), self.objects.get(second)
        if signature(one) != signature(other):
            return Comparison(Verdict.FAILS, "names, types and shapes")
        point = self._points.get(asked.computation)
        if point is None:
            return Comparison(Verdict.UNDECIDED, "nothing that is measured")
        verdicts = list(self._verdicts(point, one, other))
        return Comparison(Verdict.worst(verdicts), "observables, between classes of machines")

    def _verdicts(self, point: Point, one: Output, other: Output) -> Iterator[Verdict]:
        """Whether each number that is measured agrees."""
        measured = [
            (estimate([spec.samples(point, [one])]), estimate([spec.samples(point, [other])]))
            for spec in self.plan.study.measures
        ]
        numbers = sum(np.size(mine.value) for mine, _ in measured)
        for mine, theirs in measured:
            if min(mine.samples_effective, theirs.samples_effective) < LEAST_SAMPLES:
                yield Verdict.UNDECIDED
                continue
            for a, b in zip(_numbers(mine), _numbers(theirs), strict=True):
                yield observables_agree(a, b, FALSE_ALARM / numbers)


def _numbers(found: Estimate) -> list[tuple[float, float]]:
    """Each value with its error."""
    values, errors = np.atleast_1d(found.value), np.atleast_1d(found.error)
    return [(float(value), float(error)) for value, error in zip(values, errors, strict=True)]
