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

An orthorhombic box has a strain rate e_a for each edge L_a, with e their sum: the diagonal of the same paper's fully flexible
box (also M. E. Tuckerman, J. Alejandre, R. Lopez-Rendon, A. L. Jochim and G. J. Martyna, J. Phys. A 39, 5629 (2006)), with a
piston of mass W_a = W / 3 at each:

    dr_a/dt = v_a + e_a r_a        dL_a/dt = e_a L_a        dv_a/dt = f_a - (e_a + e / freedom) v_a
    W_a de_a/dt = 2 K_a + 2 K / freedom + virial_a - P V

where K_a and virial_a = sum r_a f_a over pairs belong to direction a. With equal rates it is the piston above. The distribution
of the edges is V^N exp(-(U + P V) / kT) times the d ln L_a; that of the volume again has V^(N-1) dV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

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


@kernel
def push_edges(
    rates: np.ndarray, kinetic: np.ndarray, virial: np.ndarray, volume: float, pressure: float, freedom: float, mass: float,
    time: float,
) -> np.ndarray:  # fmt: skip
    """The same for a piston at each edge: changes the strain `rates` [3] in place, returns the factors on the velocities [3].

    kinetic, virial: of each direction, [3].
    """
    factors = np.empty(3)
    total = kinetic[0] + kinetic[1] + kinetic[2]
    for a in range(3):
        rates[a] += 0.5 * time * (2.0 * kinetic[a] + 2.0 * total / freedom + virial[a] - pressure * volume) / mass
    total, growth = 0.0, rates[0] + rates[1] + rates[2]
    for a in range(3):
        factors[a] = math.exp(-(rates[a] + growth / freedom) * time)
        total += kinetic[a] * factors[a] * factors[a]
    for a in range(3):
        own = kinetic[a] * factors[a] * factors[a]
        rates[a] += 0.5 * time * (2.0 * own + 2.0 * total / freedom + virial[a] - pressure * volume) / mass
    return factors


@dataclass(frozen=True)
class Piston:
    """The piston of Martyna, Tobias and Klein at `pressure`, for `freedom` degrees of freedom; `time` is its relaxation time.

    It moves all edges together: of what comes for each direction, [3], the sums count, and the three strain rates are equal.
    """

    pressure: float
    kT: float
    time: float
    freedom: float

    motions: ClassVar[int] = 1  # degrees of freedom that the piston has itself

    @property
    def mass(self) -> float:
        """W = (freedom + 3) kT tau^2."""
        return (self.freedom + 3) * self.kT * self.time**2

    def push(
        self, rates: np.ndarray, kinetic: np.ndarray, virial: np.ndarray, volume: float, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The strain rates after `time`, and the factors on the velocities; all [3], by direction."""
        sums = float(kinetic.sum()), float(virial.sum())
        rate, factor = push_piston(float(rates[0]), *sums, volume, self.pressure, self.freedom, self.mass, time)
        return np.full(3, rate), np.full(3, factor)

    def kinetic(self, rates: np.ndarray) -> float:
        """The energy of its motion, W e^2 / 2."""
        return 0.5 * self.mass * float(rates[0]) ** 2

    def thermal(self, generator: np.random.Generator) -> np.ndarray:
        """Strain rates [3] as they are at temperature kT."""
        return np.full(3, generator.standard_normal() * math.sqrt(self.kT / self.mass))


@dataclass(frozen=True)
class EdgePistons:
    """A piston at each edge of an orthorhombic box; otherwise as `Piston`."""

    pressure: float
    kT: float
    time: float
    freedom: float

    motions: ClassVar[int] = 3

    @property
    def mass(self) -> float:
        """W_a = (freedom + 3) kT tau^2 / 3, of each."""
        return (self.freedom + 3) * self.kT * self.time**2 / 3

    def push(
        self, rates: np.ndarray, kinetic: np.ndarray, virial: np.ndarray, volume: float, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The strain rates after `time`, and the factors on the velocities; all [3], by direction."""
        after = rates.copy()
        factors = push_edges(after, kinetic, virial, volume, self.pressure, self.freedom, self.mass, time)
        return after, factors

    def kinetic(self, rates: np.ndarray) -> float:
        """The energy of their motion, sum W_a e_a^2 / 2."""
        return 0.5 * self.mass * float(rates @ rates)

    def thermal(self, generator: np.random.Generator) -> np.ndarray:
        """Strain rates [3] as they are at temperature kT."""
        rates: np.ndarray = generator.standard_normal(3) * math.sqrt(self.kT / self.mass)
        return rates
