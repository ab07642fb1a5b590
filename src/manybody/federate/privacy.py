"""Differential privacy of what a node sends: clip by the global norm, add Gaussian noise, account for what was spent.

Abadi et al., CCS 2016, arXiv:1607.00133. An update is clipped to the norm C and gets noise of standard deviation
z C in every coordinate (z is the *noise multiplier*); with nodes or samples drawn at rate q in each of T rounds, the
account turns (q, z, T) into (epsilon, delta). Accounts come from ``dp-accounting`` (extra ``manybody[privacy]``).

The order matters: clip, add noise, then compress. What is computed from a noisy update (a latent, an average) spends
nothing more; a residual of the clean one would give it away.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.core.random import Key
from manybody.core.spec import Spec
from manybody.federate.tensors import NamedTensors, Tensor

Accountant = Literal["rdp", "pld"]


def global_norm(tensors: NamedTensors) -> float:
    """|theta|_2 over all tensors together, scaled so that squares neither overflow nor vanish."""
    largest = max((float(np.max(np.abs(t), initial=0.0)) for t in tensors.values()), default=0.0)
    if largest == 0.0:
        return 0.0
    exponent = math.frexp(largest)[1]
    squares = math.fsum(float(np.square(np.ldexp(t.astype(np.float64), -exponent)).sum()) for t in tensors.values())
    root, power = math.frexp(math.sqrt(squares))
    if power + exponent > 1024:
        return math.inf
    return math.ldexp(root, power + exponent)


def clipped(tensors: NamedTensors, limit: float) -> NamedTensors:
    """theta min(1, C / |theta|_2), in the types that came in; the norm after is at most C, round-off included."""
    if not (math.isfinite(limit) and limit > 0):
        raise InputError(Problem("clip", "a positive, finite norm", f"{limit}", "Take a norm that most updates stay below."))
    norm = global_norm(tensors)
    if norm <= limit:
        return tensors
    exponent = math.frexp(max(float(np.max(np.abs(t), initial=0.0)) for t in tensors.values()))[1]
    unit = {name: np.ldexp(t.astype(np.float64), -exponent) for name, t in tensors.items()}
    factor = limit / global_norm(unit)
    while True:
        result = {name: np.asarray((factor * unit[name]).astype(t.dtype)) for name, t in tensors.items()}
        excess = global_norm(result) / limit
        if excess <= 1.0:
            return MappingProxyType(result)
        factor /= excess * (1 + 1e-9)  # casting to a narrow type may have rounded the norm up past the limit


def secret_key(key: Key, secret: bytes) -> Key:
    """A key for noise that only the holder of `secret` can make. A study's seed is public: its key alone hides nothing.

    `secret` is at least 16 bytes that the node keeps to itself (``secrets.token_bytes(32)``).
    """
    if len(secret) < 16:
        raise InputError(Problem("noise secret", "at least 16 bytes", f"{len(secret)}", "Use secrets.token_bytes(32)."))
    return key.derive("noise-secret", hashlib.sha256(secret).hexdigest())


def noised(tensors: NamedTensors, deviation: float, key: Key) -> NamedTensors:
    """theta + deviation N(0, 1), independent in every coordinate, from `key` (see `secret_key`).

    Each tensor draws from a key of its own name, so a tensor added or left out changes no other's noise. Drawn in
    double precision and rounded to the tensor's type. The account is of real numbers: floating point leaks a little
    through which sums are possible (Mironov, CCS 2012), which matters to who can ask for many exact outputs.
    """
    if not (math.isfinite(deviation) and deviation >= 0):
        raise InputError(Problem("noise", "a standard deviation, finite, not negative", f"{deviation}", "Give z times C."))
    noisy = {}
    for name, tensor in tensors.items():
        noise = key.derive("gaussian", name).generator().standard_normal(tensor.shape)
        noisy[name] = _rounded(name, tensor.astype(np.float64) + deviation * noise, tensor)
    return MappingProxyType(noisy)


def _rounded(name: str, values: Tensor, like: Tensor) -> Tensor:
    limit = float(np.finfo(like.dtype).max)
    if np.any(np.abs(values) > limit):
        remedy = "Send it in a wider type."
        raise InputError(Problem(f"tensor {name}", f"values within {like.dtype}", "an overflow after noise", remedy))
    return np.asarray(values.astype(like.dtype))


def privatised(tensors: NamedTensors, limit: float, noise_multiplier: float, key: Key) -> NamedTensors:
    """An update clipped to the norm `limit`, with noise of standard deviation `noise_multiplier` times `limit`."""
    return noised(clipped(tensors, limit), noise_multiplier * limit, key)


class GaussianRounds(Spec):
    """Rounds of one kind: each samples at rate q without memory (Poisson) and adds noise of z times the clip norm."""

    sampling: float = Field(gt=0, le=1, description="chance that one record takes part in a round, q")
    noise_multiplier: float = Field(gt=0, description="standard deviation of the noise over the clip norm, z")
    rounds: int = Field(gt=0, description="rounds, T")


class PrivacySpend(Spec):
    """What a run spent, as a certificate states it: (epsilon, delta) for adding or removing one record."""

    epsilon: float = Field(ge=0, description="bound on the log-likelihood ratio, outside of probability delta")
    delta: float = Field(gt=0, lt=1, description="probability outside of the bound")
    accountant: Accountant
    accountant_version: str
    rounds: tuple[GaussianRounds, ...] = Field(description="what was accounted for, in order")
    unit: Literal["record", "node"] = Field("record", description="whose presence is hidden")

    def claim(self) -> str:
        """The sentence that a certificate prints."""
        total = sum(part.rounds for part in self.rounds)
        return (
            f"adding or removing one {self.unit} changes the chance of any outcome by at most e^{self.epsilon:.4g}, "
            f"apart from {self.delta:.3g}, after {total} rounds "
            f"({self.accountant.upper()}, dp-accounting {self.accountant_version})"
        )


@dataclass(frozen=True)
class PrivacyAccount:
    """The rounds that have been spent so far. A value: `after` gives the account after more of them."""

    spent: tuple[GaussianRounds, ...] = ()
    unit: Literal["record", "node"] = "record"

    def after(self, rounds: GaussianRounds) -> PrivacyAccount:
        """The account after more rounds; equal ones are counted together, which keeps a long account short."""
        if self.spent and _same_kind(self.spent[-1], rounds):
            merged = self.spent[-1].model_copy(update={"rounds": self.spent[-1].rounds + rounds.rounds})
            return replace(self, spent=(*self.spent[:-1], merged))
        return replace(self, spent=(*self.spent, rounds))

    def spend(self, delta: float, accountant: Accountant = "pld") -> PrivacySpend:
        """(epsilon, delta) of all rounds so far; `pld` is the tighter bound, `rdp` (Mironov 2017) the better known one."""
        if not self.spent:
            raise InputError(Problem("privacy account", "at least one round", "none", "Account for the rounds that were run."))
        if not 0 < delta < 1:
            raise InputError(Problem("delta", "between 0 and 1", f"{delta}", "Take less than one over the number of records."))
        epsilon, version = _epsilon(self.spent, delta, accountant)
        return PrivacySpend(
            epsilon=epsilon, delta=delta, accountant=accountant, accountant_version=version, rounds=self.spent, unit=self.unit
        )


def _same_kind(a: GaussianRounds, b: GaussianRounds) -> bool:
    return (a.sampling, a.noise_multiplier) == (b.sampling, b.noise_multiplier)


def _epsilon(spent: Sequence[GaussianRounds], delta: float, accountant: Accountant) -> tuple[float, str]:
    """epsilon, and the version of the library that found it. Imported here: it takes more than a second."""
    from importlib import import_module
    from importlib.metadata import version

    try:
        dp: Any = import_module("dp_accounting")
        accountants: Any = import_module(f"dp_accounting.{accountant}")
    except ModuleNotFoundError as missing:
        remedy = "Install it: pip install 'manybody[privacy]'."
        raise InputError(
            Problem("privacy account", "the package dp-accounting", f"no module {missing.name}", remedy)
        ) from missing
    book = accountants.RdpAccountant() if accountant == "rdp" else accountants.PLDAccountant()
    for part in spent:
        event = dp.PoissonSampledDpEvent(part.sampling, dp.GaussianDpEvent(part.noise_multiplier))
        book.compose(dp.SelfComposedDpEvent(event, part.rounds))
    return float(book.get_epsilon(delta)), version("dp-accounting")
