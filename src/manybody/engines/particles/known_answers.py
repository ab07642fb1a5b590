"""Closed forms and limits of the Lennard-Jones liquid, in reduced units. Torch-free.

u(r) = 4 (r^-12 - r^-6). Sources: M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids, 2nd ed. (2017),
section 2.8 (tail corrections); J. O. Hirschfelder, C. F. Curtiss and R. B. Bird, Molecular Theory of Gases and Liquids
(1954), section 3.6 (second virial coefficient); N. Bernardes, Phys. Rev. 112, 1534 (1958) (lattice sums).
"""

from __future__ import annotations

import math

FCC_SUM_12, FCC_SUM_6 = 12.131880196, 14.453921044  # sum over an fcc lattice of (nearest distance / r)^n
BOYLE_TEMPERATURE = 3.417928  # where the second virial coefficient vanishes


def pair_energy(r: float) -> float:
    """u(r) = 4 (r^-12 - r^-6)."""
    return 4 * (r**-12 - r**-6)


def pair_force(r: float) -> float:
    """-u'(r) = 24 (2 r^-13 - r^-7), positive where the pair repels."""
    return 24 * (2 * r**-13 - r**-7)


def energy_tail(density: float, cutoff: float) -> float:
    """Energy a particle of the pairs beyond the cutoff at g(r) = 1: 8/3 pi rho (1/3 r_c^-9 - r_c^-3)."""
    return 8 / 3 * math.pi * density * (cutoff**-9 / 3 - cutoff**-3)


def pressure_tail(density: float, cutoff: float) -> float:
    """Pressure of the pairs beyond the cutoff at g(r) = 1: 16/3 pi rho^2 (2/3 r_c^-9 - r_c^-3)."""
    return 16 / 3 * math.pi * density**2 * (2 / 3 * cutoff**-9 - cutoff**-3)


def fcc_energy(density: float) -> float:
    """Energy a particle of the infinite fcc crystal at rest: 2 (A12 / d^12 - A6 / d^6), d the nearest distance."""
    nearest = math.pow(math.sqrt(2) / density, 1 / 3)
    return 2 * (FCC_SUM_12 * nearest**-12 - FCC_SUM_6 * nearest**-6)


def second_virial(temperature: float, terms: int = 60) -> float:
    """B2(T) = -(2 pi / 3) sum_n 2^(n - 3/2) / (4 n!) Gamma((2n - 1) / 4) T^-((2n + 1) / 4) over n >= 0, times sigma^3.

    The series converges for every T > 0; 60 terms suffice down to T = 0.3.
    """
    total = 0.0
    for n in range(terms):
        sign_and_gamma = math.gamma((2 * n - 1) / 4)  # negative for n = 0 only: the repulsive core
        total += (
            math.pow(2.0, n - 0.5) / (4 * math.factorial(n)) * sign_and_gamma * math.exp(-(2 * n + 1) / 4 * math.log(temperature))
        )
    return -2 * math.pi / 3 * total * 2
