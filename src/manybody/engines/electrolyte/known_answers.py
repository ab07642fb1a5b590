"""Linear fluctuating hydrodynamics of a driven electrolyte, in closed form. Torch-free.

Lengths in Debye lengths, energies in kT, times in (Debye length)^2 / D. Ions with charges +1, -1 of total density
n0 = 1 / (4 pi Gamma), Gamma = Bjerrum length over Debye length, drift in a field E (kT a charge and Debye length) along x.
They are Gaussian clouds of width a, g = exp(-k^2 a^2): a pair of charges has the energy 4 pi Gamma g / k^2, any pair the
energy X g / n0 in Fourier space. Dean's equation (D. S. Dean, J. Phys. A 29, L613 (1996)) for the densities of both kinds of
ions, linearised about their mean, gives for their sum n and difference c, with u = E k_x,

    dn/dt = -A n - i u c + xi,    dc/dt = -B c - i u n + xi',    A = k^2 (1 + X g),  B = k^2 + g,

white noises with <xi xi*> = <xi' xi'*> = 2 k^2 N. In the steady state M C + C M^+ = 2 k^2 with M = [[A, i u], [i u, B]], so

    S_n  = <n n*> / N = (k^2 - u s) / A,        S_c = <c c*> / N = (k^2 + u s) / B,
    <n c*> / N = i s,                           s = u k^2 (B - A) / ((A + B) (A B + u^2)).

As k -> 0 in the direction (cos t, sin t) to the field, S_n -> 1 / (1 + X + E^2 cos^2 t) and S_c / k^2 -> 1 + E^2 cos^2 t S_n:
at E != 0 they depend on the direction, which no correlation that decays faster than 1/r^3 (1/r^5) can make.
The same equations: V. Demery and D. S. Dean, J. Stat. Mech. (2016) 023106; S. Mahdisoltani and R. Golestanian, Phys. Rev.
Lett. 126, 158002 (2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Structure:
    """S_n, S_c and s of each wave vector, [modes]: <n n*> / N, <c c*> / N and Im <n c*> / N."""

    density: np.ndarray
    charge: np.ndarray
    cross: np.ndarray


@dataclass(frozen=True)
class LinearTheory:
    """The equations above: E, a and X. Wave vectors are given by `along` = k_x and `square` = k^2, any one shape."""

    field: float
    width: float
    repulsion: float = 0.0

    def form_factor(self, square: np.ndarray) -> np.ndarray:
        """g = exp(-k^2 a^2)."""
        return np.asarray(np.exp(-square * self.width**2))

    def rates(self, along: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A, B and u."""
        g = self.form_factor(square)
        return square * (1 + self.repulsion * g), square + g, self.field * along

    def structure(self, along: np.ndarray, square: np.ndarray) -> Structure:
        """The closed form."""
        a, b, u = self.rates(along, square)
        cross = u * square * (b - a) / ((a + b) * (a * b + u * u))
        return Structure((square - u * cross) / a, (square + u * cross) / b, cross)

    def density_limit(self, cosine: float) -> float:
        """S_n as k -> 0 at an angle of this cosine to the field."""
        return 1 / (1 + self.repulsion + (self.field * cosine) ** 2)

    def charge_limit(self, cosine: float) -> float:
        """S_c / k^2 as k -> 0; 1 without a field (F. H. Stillinger and R. Lovett, J. Chem. Phys. 49, 1991 (1968))."""
        return 1 + (self.field * cosine) ** 2 * self.density_limit(cosine)

    def correlations(self, along: np.ndarray, square: np.ndarray, times: np.ndarray) -> np.ndarray:
        """C(t) = exp(-M t) C, the matrix <v(t) v*(0)> / N of v = (n, c): [modes, times, 2, 2].

        exp(-M t) = exp(-m t) (cosh w t - (M - m) sinh(w t) / w) with m = (A + B) / 2 and w^2 = ((A - B) / 2)^2 - u^2.
        """
        a, b, u = (rate[:, None] for rate in self.rates(along, square))
        found = self.structure(along, square)
        mean, half = (a + b) / 2, (a - b) / 2
        root = np.sqrt(half**2 - u**2 + 0j)
        root = np.where(abs(root) < 1e-9, 1e-9, root)
        decayed, grown = (np.exp((sign * root - mean) * times) / 2 for sign in (-1, 1))  # no overflow: Re w < m
        even, odd = grown + decayed, (grown - decayed) / root
        evolved = _matrix(even - half * odd, -1j * u * odd, -1j * u * odd, even + half * odd)
        start = _matrix(found.density, 1j * found.cross, -1j * found.cross, found.charge)
        return np.asarray(evolved @ start[:, None])

    def heun(self, along: np.ndarray, square: np.ndarray, time_step: float) -> Structure:
        """What Heun's method makes of the same equations: ions drift and diffuse exactly, forces act at both ends.

        With P = exp(-h M) of free ions, F = diag(k^2 X g, g) and free noise of covariance 1 - P P^+, a step is
        v' = [P - h/2 (P F + F (P - h P F))] v + (1 - h F / 2) xi; the steady state solves C = T C T^+ + Q.
        """
        g, u, h = self.form_factor(square), self.field * along, time_step
        free = np.exp(-square * h)[:, None, None] * _matrix(
            np.cos(u * h), -1j * np.sin(u * h), -1j * np.sin(u * h), np.cos(u * h)
        )
        force = _matrix(square * self.repulsion * g, 0 * g, 0 * g, g)
        step = free - h / 2 * (free @ force + force @ (free - h * free @ force))
        noise = -np.expm1(-2 * square * h)[:, None, None] * np.linalg.matrix_power(np.eye(2) - h / 2 * force, 2)
        twice = np.einsum("mij,mkl->mikjl", step, step.conj()).reshape(-1, 4, 4)
        c = np.linalg.solve(np.eye(4) - twice, noise.reshape(-1, 4, 1)).reshape(-1, 2, 2)
        return Structure(c[:, 0, 0].real, c[:, 1, 1].real, c[:, 0, 1].imag)


def _matrix(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """[[a, b], [c, d]], the matrix last."""
    return np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2).astype(np.complex128)


# --- forces ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoxModes:
    """Half of the wave vectors of a cube of edge L, alike ones together: k_x, k^2 and how many there are, [modes]."""

    edge: float
    along: np.ndarray
    square: np.ndarray
    count: np.ndarray

    @classmethod
    def within(cls, edge: float, reach: float) -> BoxModes:
        """Those with |k| up to `reach`: k_x >= 0 stands for both signs, and the modes with k_x = 0 count half."""
        most = int(reach * edge / (2 * math.pi))
        numbers = np.arange(-most, most + 1)
        across, copies = np.unique(numbers[:, None] ** 2 + numbers**2, return_counts=True)
        along = np.repeat(np.arange(most + 1), len(across))
        square = along**2 + np.tile(across, most + 1)
        count = np.where(along == 0, 0.5, 1.0) * np.tile(copies, most + 1)
        kept = (square > 0) & (square * (2 * math.pi / edge) ** 2 <= reach**2)
        unit = 2 * math.pi / edge
        return cls(edge, unit * along[kept], unit**2 * square[kept], count[kept])


def relaxation_force(theory: LinearTheory, coupling: float, modes: BoxModes, structure: Structure | None = None) -> float:
    """How strongly the clouds around the ions hold them back, - <z F_x>, kT a Debye length.

    The force on all ions is sum z F = -(1 / L^3) sum_k i k_x (V_c c n* + V_n n c*), V_c = 4 pi Gamma g / k^2 and
    V_n = 4 pi Gamma X g, so that - <z F_x> = 1 / L^3 sum_k k_x s (V_c - V_n). `structure` replaces the closed form.
    """
    cross = (structure or theory.structure(modes.along, modes.square)).cross
    return float(2 * (modes.count * _pull(theory, coupling, modes) * cross).sum())


def _pull(theory: LinearTheory, coupling: float, modes: BoxModes) -> np.ndarray:
    """k_x (V_c - V_n) / L^3, [modes]."""
    g = theory.form_factor(modes.square)
    strength = 4 * math.pi * coupling / modes.edge**3
    return np.asarray(strength * g * (1 / modes.square - theory.repulsion) * modes.along)


def relaxation_force_of_points(coupling: float, field: float) -> float:
    """The same for point ions in an infinite box: the Onsager-Wilson-Kim function, without hydrodynamic interactions.

    - <z F_x> / E = Gamma/2 int_0^1 m^2 dm / (sqrt(1 + E^2 m^2) + 1 / sqrt 2)
                  = Gamma / (4 E^2) [sqrt(1 + E^2) - sqrt 2 + (atan(sqrt 2 E) - atan(E / sqrt(1 + E^2))) / E],

    from the k integral of the sum above; as E -> 0 it is Onsager's limiting law, Gamma (2 - sqrt 2) / 6
    (L. Onsager, Phys. Z. 28, 277 (1927); L. Onsager and S. K. Kim, J. Phys. Chem. 61, 198 (1957)).
    """
    if field == 0:
        return 0.0
    if abs(field) < 0.05:  # where the terms cancel: the integrand to order E^2
        weak = (2 - math.sqrt(2)) / 6 - field**2 * (2 - math.sqrt(2)) ** 2 / 20
        return coupling * field * weak
    root = math.sqrt(1 + field**2)
    angle = math.atan(math.sqrt(2) * field) - math.atan(field / root)
    return coupling / (4 * field) * (root - math.sqrt(2) + angle / field)


def first_correction(theory: LinearTheory, coupling: float) -> float:
    """How much the first correction beyond linear theory changes 1 / S_n at k -> 0, without a field; relative to 1.

    From the free energy of Gaussian fluctuations, 1/2 sum_k [ln(1 + n0 V) - n0 V] for V_c and V_n, differentiated twice by
    n0: Gamma/pi int k^2 dk [g^2 / (k^2 + g)^2 + (X g / (1 + X g))^2]. For point ions it is Gamma / 4, of Debye and Hueckel.
    """
    x, step = np.linspace(0, math.asinh(8 / theory.width), 2001, retstep=True)  # k = sinh x resolves both 1 and 1 / a
    k, stretched = np.sinh(x), np.cosh(x)
    square = k**2
    g = theory.form_factor(square)
    charge, density = g / (square + g), theory.repulsion * g / (1 + theory.repulsion * g)
    return float(coupling / math.pi * (stretched * square * (charge**2 + density**2)).sum() * step)


def density_tail(theory: LinearTheory, along: float, across: float) -> float:
    """n0 (g(r) - 1) of the density far away in an infinite box, r = (along, across), per cubic Debye length.

    The Fourier transform of 1 / (1 + X + E^2 cos^2 t) is - laplacian of 1 / (4 pi sqrt(q) rho) with q = 1 + X,
    p = q + E^2, rho = sqrt(q along^2 + p across^2); its first term is a contact.
    """
    q = 1 + theory.repulsion
    p = q + theory.field**2
    rho = math.sqrt(q * along**2 + p * across**2)
    bent = 3 * (q**2 * along**2 + p**2 * across**2) / rho**5 - (q + 2 * p) / rho**3
    return -bent / (4 * math.pi * math.sqrt(q))


# --- sampling --------------------------------------------------------------------------------------------------


def power_variance(correlation: np.ndarray) -> np.ndarray:
    """sum over lags of |C(lag)|^2, both signs: the variance of the mean of |v|^2 / N over M samples, times M.  [modes].

    correlation: C_vv [modes, lags] at lags 0, 1, 2, .. of the samples; v is Gaussian.
    """
    power = abs(correlation) ** 2
    return np.asarray(power[:, 0] + 2 * power[:, 1:].sum(axis=1))


def relaxation_variance(theory: LinearTheory, coupling: float, modes: BoxModes) -> float:
    """Variance of a time average of - sum z F_x / N over a long time T, times T.

    Products of Gaussians: cov of Im(n c*) is 1/2 Re [C_nn(t) C_cc(t)* - C_nc(t) C_cn(t)*].
    """
    times = np.concatenate([[0.0], np.geomspace(2e-3, 40.0, 48)])
    c = theory.correlations(modes.along, modes.square, times)
    cov = 0.5 * (c[..., 0, 0] * c[..., 1, 1].conj() - c[..., 0, 1] * c[..., 1, 0].conj()).real
    integral = 2 * np.trapezoid(cov, times, axis=1)
    return float((4 * modes.count * _pull(theory, coupling, modes) ** 2 * integral).sum())
