"""Closed forms and limits of active Brownian particles in a plane. Torch-free.

Lengths in disk diameters, energies in kT. A free particle moves by dx = v n dt + sqrt(2 D) dW and its heading turns by
d theta = sqrt(2 D_r) dW', so that <n(t) . n(0)> = exp(-D_r t) and

    <|x(t) - x(0)|^2> = 4 D t + 2 v^2 / D_r^2 (D_r t - 1 + exp(-D_r t)).

Sources: B. ten Hagen, S. van Teeffelen and H. Loewen, J. Phys.: Condens. Matter 23, 194119 (2011) (moments of the
displacement); J. R. Howse et al., Phys. Rev. Lett. 99, 048102 (2007), whose tau_R is 2 / D_r in these symbols;
J. A. Barker and D. Henderson, J. Chem. Phys. 47, 4714 (1967) (effective diameter).
"""

from __future__ import annotations

import math

import numpy as np

WELL = 2 ** (1 / 6)  # where 4 (r^-12 - r^-6) is lowest: the range of the repulsion


def orientation_correlation(rotational_diffusivity: float, time: float) -> float:
    """<n(t) . n(0)> = exp(-D_r t)."""
    return math.exp(-rotational_diffusivity * time)


def mean_square_displacement(diffusivity: float, speed: float, rotational_diffusivity: float, time: float) -> float:
    """4 D t + 2 v^2 / D_r^2 (D_r t - 1 + exp(-D_r t))."""
    turned = rotational_diffusivity * time
    return 4 * diffusivity * time + 2 * (speed / rotational_diffusivity) ** 2 * (turned + math.expm1(-turned))


def heun_mean_square_displacement(
    diffusivity: float, speed: float, rotational_diffusivity: float, time_step: float, steps: int
) -> float:
    """The same for the path that Heun's method makes of `steps` time steps, without sampling error.

    The propelled part is the sum of v dt w_k n_k with w = 1/2, 1, .. 1, 1/2 and <n_j . n_k> = q^|j - k|, q = exp(-D_r dt).
    With m steps and the inner sum over lags l, sum w_j w_(j+l) = m - l for l > 0 and m - 1/2 for l = 0; the last lag, m,
    has 1/4.
    """
    lags = np.arange(1, steps)
    decay = np.exp(-rotational_diffusivity * time_step * lags)
    last = 0.25 * math.exp(-rotational_diffusivity * time_step * steps)
    total = (steps - 0.5) + 2 * (float(((steps - lags) * decay).sum()) + last)
    return 4 * diffusivity * time_step * steps + (speed * time_step) ** 2 * total


def long_time_diffusivity(diffusivity: float, speed: float, rotational_diffusivity: float) -> float:
    """D + v^2 / (2 D_r): a quarter of the slope of the mean square displacement at long times."""
    return diffusivity + speed**2 / (2 * rotational_diffusivity)


def repulsion_energy(r: float, epsilon: float) -> float:
    """u(r) = 4 epsilon (r^-12 - r^-6) + epsilon below r = 2^(1/6), else 0."""
    return 4 * epsilon * (r**-12 - r**-6) + epsilon if r < WELL else 0.0


def repulsion_force(r: float, epsilon: float) -> float:
    """-u'(r) = 24 epsilon (2 r^-13 - r^-7) below r = 2^(1/6), else 0."""
    return 24 * epsilon * (2 * r**-13 - r**-7) if r < WELL else 0.0


def stiffness(r: float, epsilon: float) -> float:
    """u''(r) = 24 epsilon (26 r^-14 - 7 r^-8) below r = 2^(1/6)."""
    return 24 * epsilon * (26 * r**-14 - 7 * r**-8)


def effective_diameter(epsilon: float, points: int = 20_000) -> float:
    """Barker and Henderson's diameter of the repulsion, the integral of 1 - exp(-u(r)) from 0 to 2^(1/6)."""
    r = (np.arange(points) + 0.5) * (WELL / points)
    energy = 4 * epsilon * (r**-12 - r**-6) + epsilon
    return float((-np.expm1(-energy)).sum()) * WELL / points


def closest_approach(epsilon: float, energy: float, force: float) -> float:
    """The distance at which the repulsion reaches `energy` or `force`, whichever is nearer; by bisection."""
    low, high = 0.1, WELL
    for _ in range(60):
        middle = 0.5 * (low + high)
        inside = repulsion_energy(middle, epsilon) < energy and repulsion_force(middle, epsilon) < force
        low, high = (low, middle) if inside else (middle, high)
    return high
