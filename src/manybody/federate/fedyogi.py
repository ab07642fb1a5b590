"""FedYogi: the server as Yogi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.federate.mean import mean_of
from manybody.federate.pseudo_gradient import follow, start_with
from manybody.federate.rule import AggregationRule, ServerState
from manybody.federate.tensors import NamedTensors, Round, Tensor, named
from manybody.federate.weights import Weighting


def yogi(m: Tensor, v: Tensor, delta: Tensor, beta: float, beta2: float, eta: float, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """m' = b1 m + (1 - b1) Delta, v' = v - (1 - b2) Delta^2 sign(v - Delta^2), change eta m' / (sqrt v' + tau).

    Reddi et al., algorithm 2; Zaheer et al., NeurIPS 2018.
    """
    m = beta * m + (1 - beta) * delta
    v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
    return m, v, eta * m / (np.sqrt(v) + tau)


class FedYogi(AggregationRule):
    """As Adam, but the second moment changes by no more than (1 - b2) Delta^2 a round: it forgets slowly.

    `initial_variance` None starts v at tau^2, the least that the paper allows.
    """

    summary: ClassVar[str] = "server Yogi on the weighted mean's change"

    name: Literal["fedyogi"] = "fedyogi"
    learning_rate: float = Field(0.01, gt=0, description="server learning rate, eta")
    beta: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")
    tau: float = Field(1e-3, gt=0, description="least scale of a step: smaller is more adaptive")
    initial_variance: float | None = Field(None, ge=0, description="second moment before the first round")
    weighting: Weighting = Field("samples", description="what a node's weight comes from")

    def start(self, parameters: NamedTensors) -> ServerState:
        """Zero first moment, second moment at its initial value."""
        variance = self.tau**2 if self.initial_variance is None else self.initial_variance
        return start_with(named(parameters), {"momentum": 0.0, "variance": variance})

    def combine(self, round_: Round) -> NamedTensors:
        """The weighted mean, from which the pseudo-gradient is taken."""
        return mean_of(round_, self.weighting)

    def step(self, state: ServerState, round_: Round) -> ServerState:
        """The parameters after one step of Yogi."""

        def update(moments: Mapping[str, Tensor], delta: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
            before = moments["momentum"], moments["variance"]
            m, v, change = yogi(*before, delta, self.beta, self.beta2, self.learning_rate, self.tau)
            return {"momentum": m, "variance": v}, change

        return follow(state, round_, self.combine(round_), update)
