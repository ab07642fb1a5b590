"""Shamir's secret sharing: any `threshold` of the shares give the secret, fewer say nothing about it.

A. Shamir, How to share a secret, CACM 22, 612 (1979). The secret is the value at 0 of a random polynomial of degree
threshold - 1 over the integers modulo a prime; a share is its value at another point.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from manybody.core.errors import TaskError

PRIME = 2**256 + 297  # the smallest prime above every secret of 32 bytes
SECRET_BYTES, SHARE_BYTES = 32, 33


@dataclass(frozen=True)
class Share:
    """The value `y` of the polynomial at the point `x` (from 1), modulo `PRIME`."""

    x: int
    y: int

    def to_bytes(self) -> bytes:
        """The value; the point is known from who holds it."""
        return self.y.to_bytes(SHARE_BYTES, "big")

    @classmethod
    def read(cls, x: int, data: bytes) -> Self:
        """A share from bytes. Raises `TaskError` where they are none."""
        y = int.from_bytes(data, "big")
        if len(data) != SHARE_BYTES or y >= PRIME:
            raise TaskError(f"share {x}: expected {SHARE_BYTES} bytes below the prime; got {len(data)} bytes.")
        return cls(x, y)


def split(secret: bytes, threshold: int, count: int) -> tuple[Share, ...]:
    """`count` shares of a secret of 32 bytes, at the points 1 .. count."""
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        came = f"{len(secret)} bytes, threshold {threshold} of {count}"
        raise ValueError(f"expected a secret of {SECRET_BYTES} bytes and 1 <= threshold <= count; got {came}")
    polynomial = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return tuple(Share(x, _value(polynomial, x)) for x in range(1, count + 1))


def combine(shares: Sequence[Share], threshold: int) -> bytes:
    """The secret of at least `threshold` shares.

    Shares beyond the threshold must lie on the polynomial of the others. Raises `TaskError` where they do not, where
    there are too few, or where two are of one point.
    """
    points = {share.x: share for share in shares}
    if len(points) < len(shares) or len(points) < threshold or not all(0 < x < PRIME for x in points):
        raise TaskError(f"shares: expected at least {threshold}, each at a point of its own; got {sorted(s.x for s in shares)}.")
    chosen = list(points.values())[:threshold]
    wrong = [share.x for share in list(points.values())[threshold:] if _interpolated(chosen, share.x) != share.y]
    secret = _interpolated(chosen, 0)
    if wrong or secret >= 2**256:
        raise TaskError(f"shares: expected values of one polynomial; those at {wrong or sorted(points)} are not.")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(polynomial: Sequence[int], x: int) -> int:
    result = 0
    for coefficient in reversed(polynomial):
        result = (result * x + coefficient) % PRIME
    return result


def _interpolated(shares: Sequence[Share], x: int) -> int:
    """The value at `x` of the polynomial through the shares: sum_i y_i prod_(j != i) (x - x_j) / (x_i - x_j)."""
    total = 0
    for share in shares:
        others = [other.x for other in shares if other.x != share.x]
        above = math.prod(x - other for other in others)
        below = math.prod(share.x - other for other in others)
        total += share.y * above * pow(below, -1, PRIME)
    return total % PRIME
