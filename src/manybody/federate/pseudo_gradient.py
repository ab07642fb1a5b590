"""The server as an optimiser (FedOpt): what the rules that follow a pseudo-gradient share.

Reddi et al., ICLR 2021, arXiv:2003.00295, algorithm 2: Delta_t = (1/n) sum_i w_i theta_i - theta_t takes the place of
minus the gradient. Moments are kept in double precision whatever the parameters are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.federate.rule import ServerState
from manybody.federate.tensors import NamedTensors, Round, Tensor

Update = Callable[[Mapping[str, Tensor], Tensor], tuple[Mapping[str, Tensor], Tensor]]
"""(moments of one tensor, Delta of it) -> (its moments after, what is added to it); all float64."""


def start_with(parameters: NamedTensors, initial: Mapping[str, float]) -> ServerState:
    """The state before the first round: each moment of `initial` filled with its value."""
    moments = {
        moment: MappingProxyType({k: np.full(v.shape, value, dtype=np.float64) for k, v in parameters.items()})
        for moment, value in initial.items()
    }
    return ServerState(parameters, MappingProxyType(moments))


def follow(state: ServerState, round_: Round, mean: NamedTensors, update: Update) -> ServerState:
    """The state after a round: every tensor moved by `update` along its pseudo-gradient."""
    Round.of(round_.contributions, state.parameters)
    parameters: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {moment: {} for moment in state.moments}
    for name in round_.names:
        theta = state.parameters[name].astype(np.float64)
        before = {moment: tensors[name] for moment, tensors in state.moments.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # `_finite` tells, and says what to do
            after, change = update(before, mean[name].astype(np.float64) - theta)
            moved = round_.cast(name, theta + change)
        parameters[name] = _finite(name, moved)
        for moment, value in after.items():
            moments[moment][name] = value
    frozen = MappingProxyType({moment: MappingProxyType(tensors) for moment, tensors in moments.items()})
    return ServerState(MappingProxyType(parameters), frozen, state.rounds + 1)


def _finite(name: str, values: Tensor) -> Tensor:
    if not np.all(np.isfinite(values)):
        remedy = "Lower `learning_rate`, or raise `tau`: the server's optimiser diverges."
        raise InputError(Problem(f"tensor {name}", f"finite {values.dtype}", "an overflow", remedy))
    return values
