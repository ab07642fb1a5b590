"""The template of many-body sums. `many_body_formula.py` replaces the part between the marks.

As it stands it is Axilrod and Teller's term beside p_0 / r^12, so that it can be read, linted and run like any other module.
What an atom i adds to the energy hangs on the vectors v_j to its neighbours alone:

    E_i = 1/2 sum_j u2(r_j) + sum_(j < k) u3(r_j, r_k, c_jk) + F(rho_i),   rho_i = sum_j f(r_j),

so g_j = dE_i/dv_j is what pulls j, its negative what pulls i, and the sum of g_j v_j the derivative of E_i by strain. With c the
cosine between v and w, of lengths r and s: dc/dv = w/(r s) - c v/r^2.
"""

from __future__ import annotations

import math

import numpy as np

from manybody.numerics.jit import exact_kernel

# --- formula ---
TRIPLES, EMBEDDED = True, False


@exact_kernel
def coefficients(p: np.ndarray) -> tuple[float, ...]:
    """What hangs on the parameters alone."""
    return (p[0], p[1])


@exact_kernel
def pair(r: float, k: tuple[float, ...]) -> tuple[float, float]:
    """u2 and its slope."""
    return k[0] / r**12, -12.0 * k[0] / r**13


@exact_kernel
def triple(r: float, s: float, c: float, k: tuple[float, ...]) -> tuple[float, float, float, float]:
    """u3 and its slopes by r, s and c, here of two sides: half of Axilrod and Teller's, and an angle."""
    u = k[1] * (1.0 + 3.0 * c**3) / (r * s) ** 3
    return u, -3.0 * u / r, -3.0 * u / s, 9.0 * k[1] * c**2 / (r * s) ** 3


@exact_kernel
def density(r: float, k: tuple[float, ...]) -> tuple[float, float]:
    """f and its slope."""
    return 0.0, 0.0


@exact_kernel
def embedding(rho: float, k: tuple[float, ...]) -> tuple[float, float]:
    """F and its slope."""
    return 0.0, 0.0


# --- end of formula ---


@exact_kernel
def smooth(r: float, switch: float, cutoff: float) -> tuple[float, float]:
    """1 - x^3 (10 - 15 x + 6 x^2), x from 0 at `switch` to 1 at `cutoff`, and its slope; 1 before, and where they are one."""
    if r <= switch or switch >= cutoff:
        return 1.0, 0.0
    x = (r - switch) / (cutoff - switch)
    return 1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x * x), -30.0 * (x * (1.0 - x)) ** 2 / (cutoff - switch)


@exact_kernel
def _add_pairs(
    n: int, r: np.ndarray, fade: np.ndarray, parameters: tuple[float, ...], cutoff: float, dense: float,
    slope: np.ndarray, rise: np.ndarray,
) -> float:  # fmt: skip
    """Energy of pairs (half of it) and of embedding for an atom with n neighbours; dE/dr of each into slope [n]."""
    energy = rho = 0.0
    for j in range(n):
        w, dw = fade[0, j], fade[1, j]
        slope[j] = rise[j] = 0.0
        if r[j] < cutoff:
            u, du = pair(r[j], parameters)
            energy += 0.5 * u * w
            slope[j] = 0.5 * (du * w + u * dw)
        if EMBEDDED and r[j] < dense:
            f, df = density(r[j], parameters)
            rho += f * w
            rise[j] = df * w + f * dw
    if EMBEDDED:
        value, steep = embedding(rho, parameters)
        energy += value
        if rho != 0.0:  # a root is infinitely steep at 0, where no neighbour gives anything
            for j in range(n):
                slope[j] += steep * rise[j]
    return energy


@exact_kernel
def _add_triples(
    n: int, v: np.ndarray, r: np.ndarray, fade: np.ndarray, parameters: tuple[float, ...], cutoff: float, g: np.ndarray
) -> float:
    """Energy of all pairs of n neighbours of an atom; dE/dv [3, n] of each is added to g."""
    energy = 0.0
    for j in range(n):
        if r[j] >= cutoff:
            continue
        x, y, z, rj, wj, dwj = v[0, j], v[1, j], v[2, j], r[j], fade[0, j], fade[1, j]
        gx = gy = gz = 0.0
        for k in range(j + 1, n):
            if r[k] >= cutoff:
                continue
            rk, wk = r[k], fade[0, k]
            c = (x * v[0, k] + y * v[1, k] + z * v[2, k]) / (rj * rk)
            c = min(1.0, max(-1.0, c))
            u, by_r, by_s, by_c = triple(rj, rk, c, parameters)
            energy += u * wj * wk
            bend = by_c * wj * wk
            own = (by_r * wj + u * dwj) * wk / rj - bend * c / (rj * rj)
            other = (by_s * wk + u * fade[1, k]) * wj / rk - bend * c / (rk * rk)
            bend /= rj * rk
            gx += own * x + bend * v[0, k]
            gy += own * y + bend * v[1, k]
            gz += own * z + bend * v[2, k]
            g[0, k] += other * v[0, k] + bend * x
            g[1, k] += other * v[1, k] + bend * y
            g[2, k] += other * v[2, k] + bend * z
        g[0, j] += gx
        g[1, j] += gy
        g[2, j] += gz
    return energy


@exact_kernel
def sums(
    x: np.ndarray, start: np.ndarray, partner: np.ndarray, values: np.ndarray, fading: tuple[float, float], cutoff: float,
    dense: float, energies: np.ndarray, forces: np.ndarray, strained: np.ndarray,
) -> None:  # fmt: skip
    """Add up everything.

    x [3, atoms + ghosts]; the neighbours of atom i are ``partner[start[i] : start[i + 1]]``, each pair from both sides. Into
    energies [atoms]; forces [3, atoms + ghosts] and the derivative by strain [3, 3] are added. fading: from where to where
    they fade; cutoff: of pairs and triples; dense: that of densities.
    """
    parameters = coefficients(values)
    reach, widest = max(cutoff, dense), 0
    for i in range(start.size - 1):
        widest = max(widest, start[i + 1] - start[i])
    v, g, fade = np.empty((3, widest)), np.empty((3, widest)), np.empty((2, widest))
    r, slope, rise, who = np.empty(widest), np.empty(widest), np.empty(widest), np.empty(widest, np.int64)
    for i in range(start.size - 1):
        n = 0
        for place in range(start[i], start[i + 1]):
            e = partner[place]
            dx, dy, dz = x[0, e] - x[0, i], x[1, e] - x[1, i], x[2, e] - x[2, i]
            square = dx * dx + dy * dy + dz * dz
            if square < reach * reach:
                v[0, n], v[1, n], v[2, n], r[n], who[n] = dx, dy, dz, math.sqrt(square), e
                fade[0, n], fade[1, n] = smooth(r[n], fading[0], fading[1])
                n += 1
        energies[i] = _add_pairs(n, r, fade, parameters, cutoff, dense, slope, rise)
        for j in range(n):
            for d in range(3):
                g[d, j] = slope[j] / r[j] * v[d, j]
        if TRIPLES:
            energies[i] += _add_triples(n, v, r, fade, parameters, cutoff, g)
        for j in range(n):
            for d in range(3):
                forces[d, i] += g[d, j]
                forces[d, who[j]] -= g[d, j]
                for b in range(3):
                    strained[d, b] += g[d, j] * v[b, j]
