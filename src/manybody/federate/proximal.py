"""FedProx: a proximal term on the nodes, a weighted mean on the server."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.federate.mean import mean_of
from manybody.federate.rule import AggregationRule
from manybody.federate.tensors import NamedTensors, Round
from manybody.federate.weights import Weighting


def proximal_term(parameters: NamedTensors, reference: NamedTensors, mu: float) -> float:
    """(mu / 2) |theta - theta_0|^2, added to a node's loss.  `reference` are the global parameters of the round."""
    _same_names(parameters, reference)
    squares = [float(np.square(parameters[k].astype(np.float64) - reference[k]).sum()) for k in sorted(reference)]
    return 0.5 * mu * sum(squares)


def proximal_gradient(parameters: NamedTensors, reference: NamedTensors, mu: float) -> NamedTensors:
    """mu (theta - theta_0): what the proximal term adds to a node's gradient."""
    _same_names(parameters, reference)
    return MappingProxyType({k: np.asarray(mu * (parameters[k] - reference[k])) for k in sorted(reference)})


def _same_names(parameters: NamedTensors, reference: NamedTensors) -> None:
    if parameters.keys() != reference.keys():
        came = ", ".join(sorted(parameters.keys() ^ reference.keys()))
        remedy = "Compare parameters of one model."
        raise InputError(Problem("proximal term", "the reference's tensors", f"a difference in {came}", remedy))


class FedProx(AggregationRule):
    """Li et al., MLSys 2020, arXiv:1812.06127: nodes add (mu/2) |theta - theta_0|^2 to their loss; the mean stays.

    Keeps nodes with different data, or that did different amounts of work, from drifting apart. mu = 0 is FedAvg.
    """

    summary: ClassVar[str] = "weighted mean; nodes add (mu/2) |theta - theta_0|^2 to their loss"

    name: Literal["fedprox"] = "fedprox"
    mu: float = Field(0.1, ge=0, description="strength of the proximal term")
    weighting: Weighting = Field("samples", description="what a node's weight comes from")
    largest_share: float = Field(1.0, gt=0, le=1, description="most that one node may weigh, of all")

    @property
    def pull(self) -> float:
        """mu."""
        return self.mu

    def combine(self, round_: Round) -> NamedTensors:
        """The weighted mean of each tensor."""
        return mean_of(round_, self.weighting, self.largest_share)
