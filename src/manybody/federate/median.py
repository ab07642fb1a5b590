"""Coordinate-wise median."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np

from manybody.federate.rule import AggregationRule
from manybody.federate.tensors import NamedTensors, Round, Tensor


def coordinate_median(theta: Tensor) -> Tensor:
    """The median over nodes of each coordinate.  theta: [nodes, ...]; returns [...].

    With an even number of nodes it is the midpoint of the middle two, halved before adding so as not to overflow.
    """
    ordered = np.sort(theta, axis=0)
    n = theta.shape[0]
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    return np.asarray(np.clip(0.5 * low + 0.5 * high, low, high))


class CoordinateMedian(AggregationRule):
    """Each coordinate's median: between honest values as long as fewer than half of the nodes are bad.

    Yin et al., ICML 2018, arXiv:1803.01498. Takes no weights: a weight is what a bad node would lie about.
    """

    summary: ClassVar[str] = "coordinate-wise median; right with fewer than half of the nodes bad"

    name: Literal["median"] = "median"

    def combine(self, round_: Round) -> NamedTensors:
        """The median of each coordinate of each tensor."""
        return MappingProxyType({name: round_.cast(name, coordinate_median(round_.stacked(name))) for name in round_.names})
