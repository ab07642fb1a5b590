"""Coordinate-wise trimmed mean."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.federate.mean import weighted_mean
from manybody.federate.rule import AggregationRule
from manybody.federate.tensors import NamedTensors, Round, Tensor


def trimmed_mean(theta: Tensor, cut: int) -> Tensor:
    """The mean of each coordinate without its `cut` smallest and `cut` largest values.  theta: [nodes, ...], 2 cut < nodes."""
    kept = np.sort(theta, axis=0)[cut : theta.shape[0] - cut]
    return weighted_mean(kept, np.ones(kept.shape[0]))


class TrimmedMean(AggregationRule):
    """Each coordinate's mean without its extremes: bounded by honest values while no more nodes are bad than are cut.

    Yin et al., ICML 2018, arXiv:1803.01498. `bad` is how many bad nodes must be borne; that many are cut at each end.
    """

    summary: ClassVar[str] = "coordinate-wise mean without the extremes; right while no more nodes are bad than are cut"

    name: Literal["trimmed-mean"] = "trimmed-mean"
    bad: int = Field(1, ge=0, description="bad nodes to bear; so many are cut at each end")

    @property
    def fewest(self) -> int:
        """One more than are cut."""
        return 2 * self.bad + 1

    def combine(self, round_: Round) -> NamedTensors:
        """The trimmed mean of each coordinate of each tensor."""
        n = len(round_.nodes)
        if n < self.fewest:
            expected = f"more than {2 * self.bad} contributions to bear {self.bad} bad nodes"
            raise InputError(Problem("rule trimmed-mean", expected, f"{n}", "Wait for more nodes, or lower `bad`."))
        return MappingProxyType({name: round_.cast(name, trimmed_mean(round_.stacked(name), self.bad)) for name in round_.names})
