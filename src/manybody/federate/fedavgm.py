"""FedAvgM: server momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from manybody.federate.mean import mean_of
from manybody.federate.pseudo_gradient import follow, start_with
from manybody.federate.rule import AggregationRule, ServerState
from manybody.federate.tensors import NamedTensors, Round, Tensor, named
from manybody.federate.weights import Weighting


def momentum(m: Tensor, delta: Tensor, beta: float, eta: float) -> tuple[Tensor, Tensor]:
    """m' = beta m + Delta and the change eta m'.  Hsu et al., arXiv:1909.06335, equation 3."""
    m = beta * m + delta
    return m, eta * m


class FedAvgM(AggregationRule):
    """The mean's change, carried on with momentum; smooths rounds whose nodes hold different data."""

    summary: ClassVar[str] = "server momentum on the weighted mean"

    name: Literal["fedavgm"] = "fedavgm"
    learning_rate: float = Field(1.0, gt=0, description="server learning rate, eta")
    beta: float = Field(0.9, ge=0, lt=1, description="momentum")
    weighting: Weighting = Field("samples", description="what a node's weight comes from")

    def start(self, parameters: NamedTensors) -> ServerState:
        """No momentum yet."""
        return start_with(named(parameters), {"momentum": 0.0})

    def combine(self, round_: Round) -> NamedTensors:
        """The weighted mean, from which the pseudo-gradient is taken."""
        return mean_of(round_, self.weighting)

    def step(self, state: ServerState, round_: Round) -> ServerState:
        """The parameters moved along the momentum."""

        def update(moments: Mapping[str, Tensor], delta: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
            m, change = momentum(moments["momentum"], delta, self.beta, self.learning_rate)
            return {"momentum": m}, change

        return follow(state, round_, self.combine(round_), update)
