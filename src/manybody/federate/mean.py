"""Weighted mean: theta = (1/n) sum_i w_i theta_i with sum_i w_i = n (federated averaging)."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.federate.rule import AggregationRule
from manybody.federate.tensors import NamedTensors, Round, Tensor
from manybody.federate.weights import Weighting, weights

_HUGE = float(np.finfo(np.float64).max) / 4


def weighted_mean(theta: Tensor, w: Tensor) -> Tensor:
    """(1/n) sum_i w_i theta_i.  theta: [nodes, ...] float64; w: [nodes] with sum n; returns [...].

    Summed with Neumaier's compensation (ZAMM 54, 39, 1974): the error is about two units in the last place of
    (1/n) sum |w_i theta_i|, for any number of nodes. A mean lies between the smallest and the largest of what it is
    the mean of, so round-off beyond them is cut: nodes that agree get their own bits back.
    """
    n = theta.shape[0]
    # A common power of two is exact, and keeps the sum of values near the largest double finite.
    exponent = int(np.ceil(np.log2(n))) + 1 if np.any(np.abs(theta) > _HUGE / n) else 0
    total = np.zeros(theta.shape[1:])
    lost = np.zeros_like(total)
    for weight, row in zip(w, theta, strict=True):
        term = weight * np.ldexp(row, -exponent)
        after = total + term
        lost += np.where(np.abs(total) >= np.abs(term), (total - after) + term, (term - after) + total)
        total = after
    with np.errstate(over="ignore"):  # the last bit may round past the largest double; the cut below brings it back
        mean = np.ldexp((total + lost) / n, exponent)
    return np.asarray(np.clip(mean, *_extremes(theta, w)))


def _extremes(theta: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and largest of the rows that have weight."""
    rows = theta[w > 0]
    return rows.min(axis=0), rows.max(axis=0)


def mean_of(round_: Round, weighting: Weighting, largest_share: float = 1.0) -> NamedTensors:
    """The weighted mean of each tensor of a round, in the type it was sent in."""
    w = weights(round_, weighting, largest_share)
    return MappingProxyType({name: round_.cast(name, weighted_mean(round_.stacked(name), w)) for name in round_.names})


class WeightedMean(AggregationRule):
    """The mean of what the nodes send, weighted by samples, capacity or inverse validation variance (FedAvg).

    McMahan et al., AISTATS 2017, arXiv:1602.05629. One bad node moves it anywhere: use it among nodes that are checked
    otherwise. `largest_share` bounds what a node can claim by stating its own samples.
    """

    summary: ClassVar[str] = "weighted mean (FedAvg): by samples, capacity or inverse validation variance"

    name: Literal["weighted-mean"] = "weighted-mean"
    weighting: Weighting = Field("samples", description="what a node's weight comes from")
    largest_share: float = Field(1.0, gt=0, le=1, description="most that one node may weigh, of all")

    def combine(self, round_: Round) -> NamedTensors:
        """The weighted mean of each tensor."""
        return mean_of(round_, self.weighting, self.largest_share)
