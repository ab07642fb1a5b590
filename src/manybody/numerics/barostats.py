"""Barostats: what makes the volume fluctuate as a given pressure has it.

**Monte Carlo.** Edges and positions are scaled by a trial factor, and the trial is accepted with the probability that
keeps the isothermal-isobaric distribution V^N exp(-(U + P V) / kT) dV exactly. Trials are uniform in the logarithm of an
edge (D. Frenkel and B. Smit, Understanding Molecular Simulation, 2nd ed. (2002), section 5.4). Without a heat bath the
enthalpy H = K + U + P V is kept instead: what a trial costs is taken from the kinetic energy, by a factor on all velocities,
and the distribution is V^N K^(freedom/2 - 1) dV with K = H - U - P V (J. R. Ray, Phys. Rev. A 44, 4061 (1991)).

**Martyna, Tobias and Klein** (J. Chem. Phys. 101, 4177 (1994)). The logarithm of the volume moves under the pressure,
with e the strain rate and W = (freedom + 3) kT tau^2 the mass of the piston:

    dr/dt = v + e r        dV/dt = 3 V e        dv/dt = f - (1 + 3 / freedom) e v
    W de/dt = (1 + 3 / freedom) 2 K + virial - 3 P V

and heat baths act on particles and piston. E + P V + W e^2 / 2 and the energies of the baths are conserved together. Where
the total momentum is zero and freedom = 3 N - 3, the volume has the distribution V^(N-1) exp(-(U + P V) / kT): one
factor V is lost with the centre of mass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manybody.core.random import Key
from manybody.numerics.jit import kernel

Coupling = Literal["isotropic", "anisotropic", "z"]


def log_acceptance(energy_change: float, pressure: float, volume: float, trial: float, atoms: int, kT: float) -> float:
    """ln of the acceptance of a trial volume that was drawn uniformly in ln V (or in the logarithm of one edge).

    -(dU + P (V' - V)) / kT + (N + 1) ln(V' / V): N from the scaled positions, one from the trial's measure.
    """
    return -(energy_change + pressure * (trial - volume)) / kT + (atoms + 1) * math.log(trial / volume)


def log_acceptance_at_constant_enthalpy(
    cost: float, kinetic: float, freedom: float, volume: float, trial: float, atoms: int
) -> float:
    """ln of the acceptance of a trial volume that costs dU + P dV = `cost`, taken from `kinetic`; -inf where it cannot be.

    (N + 1) ln(V' / V) + (freedom / 2 - 1) ln(K' / K), for trials drawn as in `log_acceptance`.
    """
    if not cost < kinetic:
        return -math.inf
    return (atoms + 1) * math.log(trial / volume) + (0.5 * freedom - 1) * math.log1p(-cost / kinetic)


@dataclass(frozen=True)
class VolumeMoves:
    """Trial changes of the box: all edges together, one at a time, or only the third.

    size: the largest change of ln V in a trial. It changes no distribution, only how fast it is explored.
    """

    pressure: float
    kT: float
    coupling: Coupling = "isotropic"
    size: float = 0.02

    def trial(self, key: Key) -> tuple[np.ndarray, float]:
        """The factors on the three edges, and ln of a uniform number to hold against `log_acceptance`."""
        generator = key.generator()
        change = self.size * generator.uniform(-1, 1)
        axis = int(generator.integers(3))
        logs = np.zeros(3)
        if self.coupling == "isotropic":
            logs[:] = change / 3
        else:
            logs[axis if self.coupling == "anisotropic" else 2] = change
        return np.exp(logs), math.log(1.0 - generator.random())

    def cost(self, energy_change: float, volume: float, trial: float) -> float:
        """What the trial volume takes from other energies, dU + P dV."""
        return energy_change + self.pressure * (trial - volume)

    def accepts(self, threshold: float, energy_change: float, volume: float, trial: float, atoms: int) -> bool:
        """Whether the trial volume is taken; never where the trial's energy is no number."""
        return threshold < log_acceptance(energy_change, self.pressure, volume, trial, atoms, self.kT)


@kernel
def push_piston(
    rate: float, kinetic: float, virial: float, volume: float, pressure: float, freedom: float, mass: float, time: float
) -> tuple[float, float]:
    """The strain rate after `time`, and the factor on the velocities; a symmetric splitting of the two equations."""
    share = 1.0 + 3.0 / freedom
    rest = virial - 3.0 * pressure * volume
    rate += 0.5 * time * (share * 2.0 * kinetic + rest) / mass
    factor = math.exp(-share * rate * time)
    rate += 0.5 * time * (share * 2.0 * kinetic * factor * factor + rest) / mass
    return rate, factor


@dataclass(frozen=True)
class Piston:
    """The piston of Martyna, Tobias and Klein at `pressure`, for `freedom` degrees of freedom; `time` is its relaxation time."""

    pressure: float
    kT: float
    time: float
    freedom: float

    @property
    def mass(self) -> float:
        """W = (freedom + 3) kT tau^2."""
        return (self.freedom + 3) * self.kT * self.time**2

    def push(self, rate: float, kinetic: float, virial: float, volume: float, time: float) -> tuple[float, float]:
        """The strain rate after `time`, and the factor on the velocities."""
        return push_piston(rate, kinetic, virial, volume, self.pressure, self.freedom, self.mass, time)

    def energy(self, rate: float, volume: float) -> float:
        """The piston's part of the conserved quantity, P V + W e^2 / 2."""
        return self.pressure * volume + 0.5 * self.mass * rate**2
