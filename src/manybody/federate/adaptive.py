"""Servers whose steps adapt to each coordinate: Adagrad, Adam and Yogi share all but their second moment.

m' = b m + (1 - b) Delta, v' = `second_moment`, change eta m' / (sqrt v' + tau). Source: Reddi et al., ICLR 2021, algorithm 2:
without the bias correction of Adam, which their tau takes the place of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from manybody.federate.mean import mean_of
from manybody.federate.pseudo_gradient import follow, start_with
from manybody.federate.rule import AggregationRule, ServerState
from manybody.federate.tensors import NamedTensors, Round, Tensor, named
from manybody.federate.weights import Weighting


class AdaptiveServer(AggregationRule):
    """A step of the size `learning_rate` in units of how large the pseudo-gradient has been, coordinate by coordinate.

    `initial_variance` None starts v at tau^2, the least that the paper allows.
    """

    learning_rate: float = Field(0.01, gt=0, description="server learning rate, eta")
    beta: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    tau: float = Field(1e-3, gt=0, description="least scale of a step: smaller is more adaptive")
    initial_variance: float | None = Field(None, ge=0, description="second moment before the first round")
    weighting: Weighting = Field("samples", description="what a node's weight comes from")

    @abstractmethod
    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """v after a round whose pseudo-gradient is delta, from v before it; of one shape."""

    def start(self, parameters: NamedTensors) -> ServerState:
        """Zero first moment, second moment at its initial value."""
        variance = self.tau**2 if self.initial_variance is None else self.initial_variance
        return start_with(named(parameters), {"momentum": 0.0, "variance": variance})

    def combine(self, round_: Round) -> NamedTensors:
        """The weighted mean, from which the pseudo-gradient is taken."""
        return mean_of(round_, self.weighting)

    def step(self, state: ServerState, round_: Round) -> ServerState:
        """The parameters after one step."""
        return follow(state, round_, self.combine(round_), self._update)

    def _update(self, moments: Mapping[str, Tensor], delta: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
        m = self.beta * moments["momentum"] + (1 - self.beta) * delta
        v = self.second_moment(moments["variance"], delta)
        return {"momentum": m, "variance": v}, self.learning_rate * m / (np.sqrt(v) + self.tau)
