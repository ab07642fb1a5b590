"""Nosé-Hoover chains: a deterministic, time-reversible heat bath with a conserved quantity.

A chain of M thermostats of positions xi_j and velocities v_j drives the kinetic energy K of `freedom` degrees of freedom to
freedom kT / 2 (G. J. Martyna, M. E. Tuckerman, D. J. Tobias and M. L. Klein, Mol. Phys. 87, 1117 (1996)):

    d velocities / dt = -v_1 velocities                d xi_j / dt = v_j
    d v_1 / dt = (2 K - freedom kT) / Q_1 - v_1 v_2
    d v_j / dt = (Q_(j-1) v_(j-1)^2 - kT) / Q_j - v_j v_(j+1)          (without the last term for j = M)

with Q_1 = freedom kT tau^2 and Q_j = kT tau^2. A step is a symmetric splitting, refined by Suzuki and Yoshida's weights,
so that E + sum_j Q_j v_j^2 / 2 + freedom kT xi_1 + kT sum_(j>1) xi_j is conserved to order dt^2. One thermostat alone is
not ergodic for a harmonic oscillator; three or more are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manybody.numerics.jit import kernel

_TWO = 1 / (2 - 2 ** (1 / 3))
_FOUR = 1 / (4 - 4 ** (1 / 3))
WEIGHTS = {1: (1.0,), 3: (_TWO, 1 - 2 * _TWO, _TWO), 5: (_FOUR, _FOUR, 1 - 4 * _FOUR, _FOUR, _FOUR)}  # of order 2, 4, 4


@kernel
def exchange(
    kinetic: float, chain: np.ndarray, masses: np.ndarray, freedom: float, kT: float, weights: np.ndarray, time: float
) -> float:
    """Let the chain act for `time`: changes `chain` [2, length] (xi; v) in place, returns the factor on the velocities.

    masses: Q [length]; weights: a row of `WEIGHTS`. `kinetic` is that of the velocities before.
    """
    xi, v = chain[0], chain[1]
    last = v.size - 1
    factor = 1.0
    for weight in weights:
        t = weight * time
        for half in range(2):  # towards the particles, then back: the mirror image
            if half == 1:
                factor *= math.exp(-v[0] * t)
                for j in range(v.size):
                    xi[j] += v[j] * t
            for k in range(v.size):
                j = last - k if half == 0 else k
                pull = 2.0 * kinetic * factor * factor - freedom * kT if j == 0 else masses[j - 1] * v[j - 1] ** 2 - kT
                drag = math.exp(-0.25 * v[j + 1] * t) if j < last else 1.0
                v[j] = (v[j] * drag + 0.5 * t * pull / masses[j]) * drag
    return factor


@dataclass(frozen=True)
class NoseHooverChain:
    """A chain for `freedom` degrees of freedom at temperature kT, with relaxation time `time`."""

    kT: float
    time: float
    freedom: float
    length: int = 3
    order: int = 3  # a key of `WEIGHTS`

    @property
    def masses(self) -> np.ndarray:
        """Q_j [length]."""
        return self.kT * self.time**2 * np.array([self.freedom, *[1.0] * (self.length - 1)])

    @property
    def rest(self) -> np.ndarray:
        """A chain at rest, [2, length]: xi and v."""
        return np.zeros((2, self.length))

    def thermal(self, generator: np.random.Generator) -> np.ndarray:
        """A chain that moves as at temperature kT, [2, length]: v_j normal of variance kT / Q_j."""
        return np.stack([np.zeros(self.length), generator.standard_normal(self.length) * np.sqrt(self.kT / self.masses)])

    def exchange(self, kinetic: float, chain: np.ndarray, time: float) -> tuple[float, np.ndarray]:
        """The factor on the velocities, and the chain, after it has acted for `time`."""
        after = chain.copy()
        factor = exchange(kinetic, after, self.masses, self.freedom, self.kT, np.array(WEIGHTS[self.order]), time)
        return factor, after

    def energy(self, chain: np.ndarray) -> float:
        """The chain's part of the conserved quantity."""
        xi, v = chain
        return float(0.5 * self.masses @ v**2 + self.kT * (self.freedom * xi[0] + xi[1:].sum()))
