"""Weights of a weighted mean: w_i with sum_i w_i = n, from samples, measured capacity or inverse validation variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.federate.tensors import Round, Tensor

Weighting = Literal["equal", "samples", "capacity", "inverse-variance"]


def normalised(raw: Sequence[float]) -> Tensor:
    """w_i = n raw_i / sum_j raw_j, so that sum w_i = n.  raw: [nodes], not negative, not all zero.

    The sum is exact (Shewchuk's `fsum`), so equal raw weights give exactly 1 and the order does not matter.
    """
    values = np.asarray(raw, dtype=np.float64)
    if values.size == 0 or not np.all(np.isfinite(values)) or np.any(values < 0) or not np.any(values > 0):
        came = f"{values.tolist()}"
        raise InputError(Problem("weights", "finite, not negative, not all zero", came, "Leave nodes without weight out."))
    values = values / values.max()  # a sum of large weights must not overflow
    return np.asarray(values * (values.size / math.fsum(values.tolist())))


def capped(weights: Tensor, largest_share: float) -> Tensor:
    """Weights of which none exceeds `largest_share` of their sum; what is cut goes to the others in proportion.

    A node states its own number of samples: without a cap, one that claims 10^9 owns the mean. A cap below 1/n cannot
    be met and gives equal weights.
    """
    n = weights.size
    limit = max(largest_share, 1.0 / n) * n
    result = weights.astype(np.float64)
    held = np.zeros(n, dtype=bool)
    while np.any(over := ~held & (result > limit)):
        held |= over
        result[held] = limit
        rest = math.fsum(result[~held].tolist())
        if rest == 0.0:  # only nodes without weight are left, and none to give to in proportion
            result[~held] = (n - limit * np.count_nonzero(held)) / max(1, int(np.count_nonzero(~held)))
            break
        result[~held] *= max(0.0, n - limit * int(np.count_nonzero(held))) / rest
    return result


def weights(round_: Round, weighting: Weighting, largest_share: float = 1.0) -> Tensor:
    """The weights of a round's nodes, [nodes], in their order; raises `InputError` naming a node without the fact."""
    match weighting:
        case "equal":
            raw = [1.0] * len(round_.nodes)
        case "samples":
            raw = _facts(round_, "samples")
        case "capacity":
            raw = _facts(round_, "capacity")
        case "inverse-variance":
            variances = _facts(round_, "variance")
            raw = [min(variances) / variance for variance in variances]
    return capped(normalised(raw), largest_share)


def _facts(round_: Round, fact: Literal["samples", "capacity", "variance"]) -> list[float]:
    """A positive, finite fact of every node."""
    values = {c.node: getattr(c, fact) for c in round_.contributions}
    problems = [
        Problem(f"node {node}", f"a positive, finite `{fact}`", f"{value}", "Measure it on the node, or weigh equally.")
        for node, value in values.items()
        if value is None or not math.isfinite(value) or value <= 0
    ]
    if problems:
        raise InputError(*problems)
    return [float(value) for value in values.values()]
