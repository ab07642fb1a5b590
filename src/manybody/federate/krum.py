"""Krum and multi-Krum: the contributions that stand closest to their neighbours."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.federate.mean import weighted_mean
from manybody.federate.rule import AggregationRule
from manybody.federate.tensors import NamedTensors, Round, Tensor


def squared_distances(round_: Round) -> Tensor:
    """|theta_i - theta_j|^2 over all tensors together, [nodes, nodes], in units of the largest entry squared.

    From differences, not from |a|^2 + |b|^2 - 2 ab: near convergence the distances are far below the norms and would
    cancel away. The common unit leaves the order unchanged and keeps the squares from overflowing.
    """
    n = len(round_.nodes)
    largest = max(float(np.max(np.abs(t), initial=0.0)) for c in round_.contributions for t in c.tensors.values())
    exponent = -int(np.frexp(largest)[1])
    distances = np.zeros((n, n))
    for name in round_.names:
        theta = np.ldexp(round_.stacked(name).reshape(n, -1), exponent)
        for i in range(n):
            distances[i, i + 1 :] += np.square(theta[i + 1 :] - theta[i]).sum(axis=1)
    return distances + distances.T


def krum_scores(distances: Tensor, bad: int) -> Tensor:
    """s_i = sum of the n - f - 2 smallest squared distances from i to others.  distances: [n, n]; returns [n].

    Blanchard et al., NeurIPS 2017, arXiv:1703.02757, section 4.
    """
    n = distances.shape[0]
    others = distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    return np.asarray(np.sort(others, axis=1)[:, : n - bad - 2].sum(axis=1))


class Krum(AggregationRule):
    """The contribution closest to its n - f - 2 neighbours; with `keep` > 1 the mean of that many (multi-Krum).

    Blanchard et al., NeurIPS 2017, arXiv:1703.02757: needs n >= 2 f + 3. What it picks lies within
    sqrt((n - f - 2) / (n - 2 f - 1)) of the honest nodes' diameter from an honest contribution (`reach`).
    Multi-Krum keeps at most n - f - 2. Ties go to the node whose name sorts first.
    """

    summary: ClassVar[str] = "Krum and multi-Krum: what stands closest to its neighbours; needs n >= 2 f + 3"

    name: Literal["krum"] = "krum"
    bad: int = Field(1, ge=0, description="bad nodes to bear, f")
    keep: int = Field(1, ge=1, description="contributions to average; 1 is Krum, more is multi-Krum")

    @property
    def fewest(self) -> int:
        """2 f + 3, and enough that those kept are among n - f - 2."""
        return max(2 * self.bad + 3, self.keep + self.bad + 2)

    def chosen(self, round_: Round) -> tuple[str, ...]:
        """The nodes whose contributions are kept, best first."""
        n = len(round_.nodes)
        if n < self.fewest:
            expected = f"at least {self.fewest} contributions for bad = {self.bad}, keep = {self.keep}"
            raise InputError(Problem("rule krum", expected, f"{n}", "Wait for more nodes, or lower `bad` or `keep`."))
        order = np.argsort(krum_scores(squared_distances(round_), self.bad), kind="stable")
        return tuple(round_.nodes[index] for index in order[: self.keep])

    def combine(self, round_: Round) -> NamedTensors:
        """The mean of the chosen contributions."""
        chosen = set(self.chosen(round_))
        kept = Round(tuple(c for c in round_.contributions if c.node in chosen))
        ones = np.ones(len(kept.nodes))
        return MappingProxyType({name: kept.cast(name, weighted_mean(kept.stacked(name), ones)) for name in kept.names})


def reach(n: int, bad: int) -> float:
    """How far from some honest contribution Krum's choice can lie, in diameters of the honest ones.

    The choice scores no worse than any honest node, whose n - f - 2 nearest are within the diameter D; of the choice's
    own n - f - 2 neighbours at least n - 2 f - 1 are honest, so the nearest of these is within
    D sqrt((n - f - 2) / (n - 2 f - 1)).
    """
    return float(np.sqrt((n - bad - 2) / (n - 2 * bad - 1)))
