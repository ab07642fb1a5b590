"""Replica exchange: neighbours on a ladder of temperatures swap configurations, and each rung keeps its own distribution.

Rung i runs at kT_i with energy U_i. A swap of i and j is accepted with probability

    min(1, exp[(1 / kT_i - 1 / kT_j) (U_i - U_j)]),

and who moves takes its velocities times the square root of the ratio of temperatures, so kinetic energies cancel. In even
rounds the pairs (0, 1), (2, 3), .. are tried, in odd ones (1, 2), (3, 4), ..: pairs of a round do not touch, so they are
decided independently. Source: Y. Sugita and Y. Okamoto, Chem. Phys. Lett. 314, 141 (1999). Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from manybody.core.random import Key


def ladder(lowest: float, highest: float, replicas: int) -> tuple[float, ...]:
    """Temperatures in even ratios from `lowest` to `highest`: neighbours then swap about as often, if heat capacity is even."""
    if replicas == 1:
        return (lowest,)
    ratio = highest / lowest
    return tuple(lowest * math.pow(ratio, rung / (replicas - 1)) for rung in range(replicas))


def acceptance(energy: float, other_energy: float, kT: float, other_kT: float) -> float:
    """The probability to accept a swap of two rungs."""
    return math.exp(min(0.0, (1 / kT - 1 / other_kT) * (energy - other_energy)))


def partner(rung: int, replicas: int, turn: int) -> int:
    """The rung that `rung` may swap with in a turn, itself where there is none: at the ends, every other turn."""
    other = rung + 1 if (rung + turn) % 2 == 0 else rung - 1
    return other if 0 <= other < replicas else rung


def swaps(turn: int, energies: Sequence[float], temperatures: Sequence[float], key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Where each rung's next configuration comes from, [replicas], and the probabilities [replicas - 1] of each pair's swap.

    A pair that has no turn has -1. `key` decides, so the same energies give the same swaps anywhere.
    """
    replicas = len(energies)
    source, probabilities = np.arange(replicas), np.full(replicas - 1, -1.0)
    chances = key.derive("exchange").generator().uniform(size=replicas)
    for rung in range(replicas):
        other = partner(rung, replicas, turn)
        if other > rung:
            pair = energies[rung], energies[other], temperatures[rung], temperatures[other]
            probabilities[rung] = acceptance(*pair)
            if chances[rung] < probabilities[rung]:
                source[rung], source[other] = other, rung
    return source, probabilities
