"""Federated training of a quadratic loss in closed form: what rounds of local steps must give, and how fast.

Party i has the loss L_i = 1/2 theta H_i theta - b_i theta + s_i / 2. A gradient step of size eta with a pull mu towards
the round's start theta_0 is theta <- M_i theta + eta (b_i + mu theta_0), M_i = 1 - eta (H_i + mu). After E of them

    theta = (M_i^E + eta mu S_i) theta_0 + eta S_i b_i,    S_i = sum_(k < E) M_i^k,

so a round of local steps and a mean with fixed weights is one affine map, theta <- A theta + c. One step a round makes it
gradient descent on the pooled loss; with more, each party drifts to its own minimum, and the fixed point is another one.
Source: T. Li et al., MLSys 2020, arXiv:1812.06127; X. Li et al., ICLR 2020, arXiv:1907.02189 (the drift).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manybody.core.learning import Training
from manybody.federate.tensors import Tensor


@dataclass(frozen=True)
class Quadratic:
    """1/2 theta H theta - b theta + s/2.  hessian: [values, values], symmetric; linear: [values]."""

    hessian: Tensor
    linear: Tensor
    square: float

    def loss(self, theta: Tensor) -> float:
        """The loss at theta [values]."""
        return float(0.5 * theta @ self.hessian @ theta - self.linear @ theta + 0.5 * self.square)

    @property
    def minimum(self) -> Tensor:
        """The least-squares solution of least norm, [values]."""
        return np.asarray(np.linalg.lstsq(self.hessian, self.linear, rcond=None)[0])


def pooled(parts: Sequence[Quadratic], shares: Sequence[float]) -> Quadratic:
    """The loss of all data together; `shares` are those of the parties, with sum 1."""
    return Quadratic(
        np.asarray(sum(share * each.hessian for share, each in zip(shares, parts, strict=True))),
        np.asarray(sum(share * each.linear for share, each in zip(shares, parts, strict=True))),
        float(sum(share * each.square for share, each in zip(shares, parts, strict=True))),
    )


def local_map(part: Quadratic, training: Training) -> tuple[Tensor, Tensor]:
    """A [values, values] and c [values] of a party's round, by the eigenvalues of H."""
    eta, mu = training.learning_rate, training.pull
    values, vectors = np.linalg.eigh(part.hessian)
    factor = 1 - eta * (values + mu)
    power = factor**training.steps
    safe = np.where(np.abs(1 - factor) > 1e-12, 1 - factor, 1.0)
    total = np.where(np.abs(1 - factor) > 1e-12, (1 - power) / safe, training.steps)
    return (vectors * (power + eta * mu * total)) @ vectors.T, (vectors * (eta * total)) @ (vectors.T @ part.linear)


@dataclass(frozen=True)
class Rounds:
    """What a round does to the parameters: theta <- matrix theta + shift."""

    matrix: Tensor
    shift: Tensor

    @classmethod
    def of(cls, parts: Sequence[Quadratic], shares: Sequence[float], multipliers: Sequence[float], training: Training) -> Rounds:
        """The mean of what all parties send, each update times its multiplier."""
        size = len(parts[0].linear)
        matrix, shift = np.zeros((size, size)), np.zeros(size)
        for part, share, multiplier in zip(parts, shares, multipliers, strict=True):
            a, c = local_map(part, training)
            matrix += share * (multiplier * a + (1 - multiplier) * np.eye(size))
            shift += share * multiplier * c
        return cls(matrix, shift)

    def after(self, theta: Tensor, rounds: int) -> Tensor:
        """The parameters [values] after a number of rounds, by a power of the matrix."""
        size = len(theta)
        whole = np.eye(size + 1)
        whole[:size, :size], whole[:size, size] = self.matrix, self.shift
        return np.asarray((np.linalg.matrix_power(whole, rounds) @ np.append(theta, 1.0))[:size])

    @property
    def rate(self) -> float:
        """|A|: no round takes the distance to the fixed point down by less than this factor."""
        return float(np.linalg.norm(self.matrix, 2))

    @property
    def fixed_point(self) -> Tensor:
        """Where rounds without end lead, [values]."""
        return np.asarray(np.linalg.lstsq(np.eye(len(self.shift)) - self.matrix, self.shift, rcond=None)[0])
