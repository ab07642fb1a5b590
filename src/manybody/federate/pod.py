"""Proper orthogonal decomposition: states of a low-dimensional family as a few coefficients over a shared basis.

Sirovich, Quarterly of Applied Mathematics 45, 561 (1987). The basis is known to both sides and named by its digest; what
it leaves of a state is the residual, and whether that may be dropped is decided in `embed`, by the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from manybody.core.digest import digest_bytes, digest_document
from manybody.core.errors import InputError, Problem
from manybody.federate.tensors import Tensor


def truncation(singular: Tensor, energy: float) -> int:
    """The least r with sum_{k <= r} s_k^2 >= energy sum_k s_k^2.  singular: [modes], falling."""
    captured = np.cumsum(np.square(singular))
    if captured.size == 0 or captured[-1] == 0.0:
        return 0
    return int(np.searchsorted(captured, energy * captured[-1]) + 1)


@dataclass(frozen=True)
class Basis:
    """x is near mean + sum_k c_k mode_k.  mean: [values]; modes: [rank, values], orthonormal rows; both float64."""

    mean: Tensor
    modes: Tensor

    @classmethod
    def of(cls, snapshots: Tensor, energy: float = 0.999999, rank: int | None = None) -> Basis:
        """The basis of `snapshots` [n, ...] that captures the share `energy` of their variance, or that has `rank` modes."""
        states = np.asarray(snapshots, dtype=np.float64)
        if states.size == 0 or not np.all(np.isfinite(states)):
            raise InputError(Problem("POD basis", "finite snapshots [n, values]", f"{states.shape}", "Give at least one state."))
        flat = states.reshape(len(states), -1)
        mean = flat.mean(axis=0)
        _, singular, modes = np.linalg.svd(flat - mean, full_matrices=False)
        kept = truncation(singular, energy) if rank is None else min(rank, len(singular))
        return cls(mean, np.ascontiguousarray(modes[:kept]))

    @cached_property
    def digest(self) -> str:
        """The identity of the basis: SHA-256 over shape, mean and modes in little-endian double precision."""
        parts = [digest_bytes(np.ascontiguousarray(a, dtype="<f8").tobytes()) for a in (self.mean, self.modes)]
        return digest_document({"pod": list(self.modes.shape), "parts": parts})

    @property
    def rank(self) -> int:
        """How many coefficients a state becomes."""
        return int(self.modes.shape[0])

    def project(self, state: Tensor) -> Tensor:
        """c = modes (x - mean).  state: [...] of as many values; returns [rank]."""
        return np.asarray(self.modes @ (state.reshape(-1).astype(np.float64) - self.mean))

    def expand(self, coefficients: Tensor) -> Tensor:
        """mean + sum_k c_k mode_k, [values].

        Mode by mode and not as a matrix product: the order of additions is then fixed, so that every machine decodes
        the bits that the sender verified.
        """
        state = self.mean.copy()
        for coefficient, mode in zip(coefficients, self.modes, strict=True):
            state += coefficient * mode
        return state
