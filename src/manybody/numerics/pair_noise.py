"""Noise by name: standard normal numbers from hashes, without a stream of random numbers.

The normal numbers are those of the ziggurat of G. Marsaglia and W. W. Tsang, J. Stat. Softw. 5, 8 (2000): under the density
exp(-x^2/2) lie 256 layers of equal area; a number that is uniform in a layer is below the density but for one case in a
hundred, which is decided by further hashes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.jit import exact_kernel

LAYERS = 256
TAIL = 3.6541528853610088  # where the lowest layer ends and the tail begins, such that the topmost layer closes at 0
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # an odd number by whose multiples names are told apart
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _8, _1 = (np.uint64(shift) for shift in (30, 27, 31, 11, 8, 1))
_LAYER = np.uint64(LAYERS - 1)


def _edges() -> NDArray[np.float64]:
    """The widths of the layers [LAYERS + 1], from below: that of the lowest counts the area of the tail."""
    area = TAIL * math.exp(-0.5 * TAIL**2) + math.sqrt(math.pi / 2) * math.erfc(TAIL / math.sqrt(2))
    edges = [area / math.exp(-0.5 * TAIL**2), TAIL]
    while len(edges) < LAYERS:
        edges.append(math.sqrt(-2 * math.log(math.exp(-0.5 * edges[-1] ** 2) + area / edges[-1])))
    return np.array([*edges, 0.0])


EDGES = _edges()


@exact_kernel
def mixed(word: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which each bit of the result depends on all (the finaliser of splitmix64)."""
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@exact_kernel
def uniform(word: np.uint64) -> float:
    """A number between 0 and 1, neither included, from the upper 53 bits of a hash."""
    return (float(word >> _11) + 0.5) * 2.0**-53


@exact_kernel
def _corner(word: np.uint64) -> float:
    """A normal number from a hash that fell outside of the density's inner layers."""
    while True:
        layer = int(word & _LAYER)
        sign = 1.0 - 2.0 * float((word >> _8) & _1)
        x = uniform(word) * EDGES[layer]
        if x < EDGES[layer + 1]:
            return float(sign * x)
        word = mixed(word + GOLDEN)
        if layer == 0:
            while True:  # the tail: x^2/2 beyond that at its beginning is about exponential (Marsaglia)
                beyond = -math.log(uniform(word)) / TAIL
                word = mixed(word + GOLDEN)
                if -2.0 * math.log(uniform(word)) > beyond * beyond:
                    return float(sign * (TAIL + beyond))
                word = mixed(word + GOLDEN)
        low, high = math.exp(-0.5 * EDGES[layer] ** 2), math.exp(-0.5 * EDGES[layer + 1] ** 2)
        if low + uniform(word) * (high - low) < math.exp(-0.5 * x * x):
            return float(sign * x)
        word = mixed(word + GOLDEN)


@exact_kernel
def normal(word: np.uint64) -> float:
    """A standard normal number from a hash: its layer from bits 0 to 7, its sign from bit 8, its size from bits 11 to 63."""
    layer = int(word & _LAYER)
    x = uniform(word) * EDGES[layer]
    if x < EDGES[layer + 1]:
        return float(-x if (word >> _8) & _1 else x)
    return _corner(word)
