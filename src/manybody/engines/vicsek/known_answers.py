"""Exact limits of Vicsek's model. Torch-free.

A turn D is uniform from -eta/2 to eta/2, so that q = <cos D> = sin(eta/2) / (eta/2) and q_2 = <cos 2D> = sin(eta) / eta. The
order parameter is the length of the mean heading, phi = |sum exp(i theta)| / N. Derived here:

- Whatever the neighbours, a step takes the mean direction psi_i of each particle's to psi_i + D_i. With Psi the length of the
  mean of exp(i psi), <phi^2> = q^2 Psi^2 + (1 - q^2) / N. So no state is more ordered than
- particles that all see each other: Psi = 1 in each step.
- At full noise, eta = 2 pi, and for particles that do not see each other, headings are independent and uniform:
  <phi^2> = 1 / N and <phi> = sqrt(pi / (4 N)) (1 + 1 / (16 N) + ..), the mean of Rayleigh's distribution and its first
  correction, from <phi^4> = (2 - 1 / N) / N^2 by Laguerre's polynomials.
- A particle that sees no other is a random walker with persistence: headings l steps apart correlate as q^l.
"""

from __future__ import annotations

import math

import numpy as np


def mean_cosine(noise: float, times: int = 1) -> float:
    """<cos(m D)> = sin(m eta / 2) / (m eta / 2), m = `times`."""
    return float(np.sinc(times * noise / (2 * math.pi)))


def rayleigh_order(particles: int) -> float:
    """<phi> of independent headings: sqrt(pi / (4 N)) (1 + 1 / (16 N))."""
    return math.sqrt(math.pi / (4 * particles)) * (1 + 1 / (16 * particles))


def seen_by_all(noise: float, particles: int) -> float:
    """<phi^2> = q^2 + (1 - q^2) / N of particles that all see each other; 1 / N at full noise."""
    q2 = mean_cosine(noise) ** 2
    return q2 + (1 - q2) / particles


def seen_by_all_variance(noise: float, particles: int) -> float:
    """The variance of phi^2 then: that of 1 / N + (1 - 1 / N) times the mean of cos(D_i - D_j) over pairs (W. Hoeffding).

    2 / (N (N - 1)) [2 (N - 2) z_1 + z_2], z_1 = var(q cos D), z_2 = var(cos(D - D')).
    """
    q, q2, n = mean_cosine(noise), mean_cosine(noise, 2), particles
    one, two = q**2 * ((1 + q2) / 2 - q**2), (1 + q2**2) / 2 - q**4
    return (1 - 1 / n) ** 2 * 2 / (n * (n - 1)) * (2 * (n - 2) * one + two)


def balance_variance(noise: float, particles: int) -> float:
    """At most 4 (1 - q^2) / N: the variance of phi^2 after a step, given the directions before the turns.

    Another turn of one particle changes phi^2 by at most 2 / N |exp(iD) - exp(iD')|, and half the sum of the mean squares of
    such changes bounds a variance (B. Efron and C. Stein, Ann. Stat. 9, 586 (1981)).
    """
    return 4 * (1 - mean_cosine(noise) ** 2) / particles


def walk_displacement(noise: float, speed: float, steps: int) -> float:
    """<|x(t) - x(0)|^2> = v^2 (n + 2 sum_l (n - l) q^l), l from 1 to n - 1, of a particle that sees no other."""
    lags = np.arange(1, steps)
    return speed**2 * (steps + 2 * float(((steps - lags) * mean_cosine(noise) ** lags).sum()))
