"""Overdamped motion of disks in a plane that an Ornstein-Uhlenbeck process propels: one compiled call for many time steps.

    dx = (p + F(x)) dt,   dp = -p / tau dt + sqrt(2 T) / tau dW,   so that <p_a(t) p_b(0)> = delta_ab T / tau exp(-t / tau)

with the mobility 1. Over a time step h the propulsion p' and its integral I are jointly Gaussian given p; with e = exp(-h/tau)

    p' = e p + xi_p,   I = tau (1 - e) p + xi_x,
    <xi_p^2> = T / tau (1 - e^2),   <xi_p xi_x> = T (1 - e)^2,   <xi_x^2> = T (2 h - tau (3 - 4 e + e^2))

(D. T. Gillespie, Phys. Rev. E 54, 2084 (1996)). So a free particle moves exactly, whatever the time step. Forces enter as in
Heun's method,

    x' = x + I + h/2 [F(x) + F(x + h F(x) + I)],

and paths converge with h^2: no white noise acts on x.
"""

from __future__ import annotations

import math

import numpy as np

from manybody.numerics.brownian import CUTOFF2, LONGEST_STEP, add_forces, near, pair_list, stale, wca_pull
from manybody.numerics.jit import exact_kernel


@exact_kernel
def add_trap(x: np.ndarray, trap: float, anharmonicity: float, f: np.ndarray) -> None:
    """Add -(k + q r^2) x to the forces f [particles, 2]."""
    for i in range(x.shape[0]):
        pull = trap + anharmonicity * (x[i, 0] * x[i, 0] + x[i, 1] * x[i, 1])
        f[i, 0] -= pull * x[i, 0]
        f[i, 1] -= pull * x[i, 1]


@exact_kernel
def advance_coloured(
    positions: np.ndarray, propulsions: np.ndarray, edge: float, epsilon: float, trap: float, anharmonicity: float,
    decay: float, carried: float, mixing: np.ndarray, dt: float, skin: float, noise: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:  # fmt: skip
    """Advance by ``len(noise)`` time steps in a periodic square; epsilon 0 means no pairs.

    positions, propulsions [particles, 2], positions not wrapped; the trap pulls to the origin. decay: e; carried:
    tau (1 - e); mixing [2, 2]: a lower triangular root of the covariance of (xi_x, xi_p); noise [steps, particles, 4],
    standard normal, the first two for xi_x. Returns positions, propulsions, the mean displacement [2] by propulsion alone, and
    the step and particle at which one moves further than `LONGEST_STEP` (where there are pairs) or to no number, else -1, -1.
    """
    x, p, n = positions.copy(), propulsions.copy(), positions.shape[0]
    predicted, free, f, g = np.empty_like(x), np.empty_like(x), np.zeros_like(x), np.zeros_like(x)
    driven, reach = np.zeros(2), math.sqrt(CUTOFF2) + skin
    longest = LONGEST_STEP if epsilon > 0.0 else math.inf
    held = trap > 0.0 or anharmonicity > 0.0
    listed = x.copy()
    start, entries = pair_list(x, edge, reach) if epsilon > 0.0 else (np.zeros(n + 1, np.int64), np.empty(0, np.int64))
    for step in range(noise.shape[0]):
        if epsilon > 0.0:
            if stale(x, listed, 0.5 * skin):
                listed[:] = x
                start, entries = pair_list(x, edge, reach)
            add_forces(x, edge, start, entries, epsilon, f)
        else:
            f[:] = 0.0
        if held:
            add_trap(x, trap, anharmonicity, f)
        for i in range(n):
            length2 = 0.0
            for d in range(2):
                free[i, d] = carried * p[i, d] + mixing[0, 0] * noise[step, i, d]
                p[i, d] = decay * p[i, d] + mixing[1, 0] * noise[step, i, d] + mixing[1, 1] * noise[step, i, 2 + d]
                move = free[i, d] + dt * f[i, d]
                predicted[i, d] = x[i, d] + move
                length2 += move * move
            if not length2 < longest * longest:
                return positions, propulsions, driven, step, i
        if epsilon > 0.0:
            if stale(predicted, listed, 0.5 * skin):
                listed[:] = predicted
                start, entries = pair_list(predicted, edge, reach)
            add_forces(predicted, edge, start, entries, epsilon, g)
        else:
            g[:] = 0.0
        if held:
            add_trap(predicted, trap, anharmonicity, g)
        pushed_x = pushed_y = 0.0
        for i in range(n):
            move_x = free[i, 0] + 0.5 * dt * (f[i, 0] + g[i, 0])
            move_y = free[i, 1] + 0.5 * dt * (f[i, 1] + g[i, 1])
            if not move_x * move_x + move_y * move_y < longest * longest:
                return positions, propulsions, driven, step, i
            x[i, 0] += move_x
            x[i, 1] += move_y
            pushed_x += free[i, 0]
            pushed_y += free[i, 1]
        driven[0] += pushed_x / n
        driven[1] += pushed_y / n
    return x, p, driven, -1, -1


@exact_kernel
def hessian_product(
    x: np.ndarray, v: np.ndarray, edge: float, epsilon: float, trap: float, anharmonicity: float
) -> tuple[np.ndarray, float]:
    """H v [particles, 2] and the trace of H, the second derivatives of the potential energy of pairs and trap at x.

    A pair adds u'' along its axis and u'/r across; the trap adds (k + q r^2) 1 + 2 q x x^T.
    """
    out, trace = np.zeros_like(v), 0.0
    for i in range(x.shape[0]):
        r2 = x[i, 0] * x[i, 0] + x[i, 1] * x[i, 1]
        along = 2.0 * anharmonicity * (x[i, 0] * v[i, 0] + x[i, 1] * v[i, 1])
        for d in range(2):
            out[i, d] = (trap + anharmonicity * r2) * v[i, d] + along * x[i, d]
        trace += 2.0 * trap + 4.0 * anharmonicity * r2
    if epsilon > 0.0:
        start, entries = pair_list(x, edge, math.sqrt(CUTOFF2))
        for i in range(x.shape[0]):
            for k in range(start[i], start[i + 1]):
                j = entries[k]
                r2 = near(x, i, j, edge)
                if r2 < CUTOFF2:
                    dx, dy = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1]
                    dx -= edge * np.round(dx / edge)
                    dy -= edge * np.round(dy / edge)
                    inverse6 = 1.0 / (r2 * r2 * r2)
                    second = 24.0 * epsilon * (26.0 * inverse6 - 7.0) * inverse6 / r2  # u''
                    across = -wca_pull(r2, epsilon)  # u'/r
                    wx, wy = v[i, 0] - v[j, 0], v[i, 1] - v[j, 1]
                    along = (second - across) * (dx * wx + dy * wy) / r2
                    hx, hy = along * dx + across * wx, along * dy + across * wy
                    out[i, 0] += hx
                    out[i, 1] += hy
                    out[j, 0] -= hx
                    out[j, 1] -= hy
                    trace += 2.0 * (second + across)
    return out, trace
