"""What an aggregation rule must offer: a frozen, digestible spec whose `step` is a pure function.

A member of the entry-point group ``manybody.rules`` derives from `AggregationRule` and writes `combine` (and, where it
keeps moments from round to round, `slots` and `step`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from manybody.core.spec import NamedSpec
from manybody.federate.tensors import NamedTensors, Round, named
from manybody.federate.weights import Weighting


@dataclass(frozen=True)
class ServerState:
    """What is kept between rounds: the global parameters, a rule's moments by name, and how many rounds went in."""

    parameters: NamedTensors
    moments: Mapping[str, NamedTensors] = field(default_factory=dict)
    rounds: int = 0


class AggregationRule(NamedSpec, ABC):
    """How the contributions of a round become one set of parameters. Pure: the same round gives the same bits."""

    @property
    def fewest(self) -> int:
        """The fewest contributions that it can combine."""
        return 1

    @property
    def weighs_by(self) -> Weighting:
        """Which fact of the nodes it needs."""
        return cast("Weighting", getattr(self, "weighting", "equal"))

    @property
    def pull(self) -> float:
        """Strength of the proximal term that nodes add to their loss."""
        return 0.0

    def start(self, parameters: NamedTensors) -> ServerState:
        """The state before the first round, from the parameters that the nodes start with."""
        return ServerState(named(parameters))

    def step(self, state: ServerState, round_: Round) -> ServerState:
        """The state after a round, with the new global parameters in it."""
        return ServerState(self.combine(round_), state.moments, state.rounds + 1)

    @abstractmethod
    def combine(self, round_: Round) -> NamedTensors:
        """One set of tensors from those of a round, of the same names, shapes and types."""
