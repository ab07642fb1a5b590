"""The diamond crystal of Stillinger and Weber's potential, without simulating it. Torch-free.

With bonds of length d, Omega = 16 d^3 / (6 sqrt 3) the volume of two atoms (edge^3 / 4), k = u2''(d) and
K = strength epsilon exp[2 gamma sigma/(d - a sigma)], half the curvature of an angle's energy in its cosine:

- every angle has a cosine of -1/3, where its energy and slope vanish: u2'(d) = 0, and an atom, which half of four bonds belong
  to, has the energy 2 u2(d);
- B = 2 alpha / Omega, alpha = 2 k d^2 / 9: a dilation e stretches four bonds by e d each;
- c11 - c12 = 9 beta / (2 Omega), beta = 256 K / 81: the strain (e, -e, 0) stretches no bond, and changes the cosines of eight of
  the twelve angles by 4 e / 3;
- c44 = 9 alpha beta / [2 (alpha + beta) Omega]: under a shear s = e_yz a displacement of the two sublattices by t d / sqrt 3
  along x costs alpha (2 s + t)^2 + beta (s - t)^2, which is least at 9 s^2 alpha beta / (alpha + beta), and 2 c44 s^2 is its
  density.

All this holds where second neighbours, at sqrt(8/3) d, are beyond the cutoff a sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from manybody.engines.atoms.energies.formulas import StillingerWeberModel

BONDS = "bonds and angles of the diamond lattice in closed form, F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985)"
SECOND = math.sqrt(8 / 3)  # second neighbours over first


@dataclass(frozen=True)
class DiamondCrystal:
    """The infinite crystal at rest, at zero pressure."""

    model: StillingerWeberModel
    bond: float

    @property
    def edge(self) -> float:
        """Of the cubic cell, angstroms."""
        return 4 / math.sqrt(3) * self.bond

    @property
    def energy(self) -> float:
        """Energy of an atom, eV."""
        return 2 * pair_energy(self.model, self.bond)[0]

    @property
    def bulk_modulus(self) -> float:
        """eV/angstrom^3."""
        return 2 * self._stretching / self._cell

    def elastic(self) -> tuple[float, float, float]:
        """c11, c12 and c44, eV/angstrom^3."""
        alpha, beta, omega = self._stretching, self._bending, self._cell
        difference, c44 = 4.5 * beta / omega, 4.5 * alpha * beta / (alpha + beta) / omega
        return self.bulk_modulus + 2 / 3 * difference, self.bulk_modulus - difference / 3, c44

    @property
    def _cell(self) -> float:
        return self.edge**3 / 4

    @property
    def _stretching(self) -> float:
        return 2 / 9 * pair_energy(self.model, self.bond)[2] * self.bond**2

    @property
    def _bending(self) -> float:
        model = self.model
        fade = math.exp(2 * model.gamma * model.sigma / (self.bond - model.a * model.sigma))
        return 256 / 81 * model.strength * model.epsilon * fade


def pair_energy(model: StillingerWeberModel, r: float) -> tuple[float, float, float]:
    """u2, u2' and u2'' below the cutoff, by hand, with x = r/sigma and y = 1/(x - a)."""
    x = r / model.sigma
    y = 1 / (x - model.a)
    powers = (model.B, -model.p), (-1.0, -model.q)
    h, h1, h2 = (
        sum(weight * math.prod(power - k for k in range(order)) * math.pow(x, power - order) for weight, power in powers)
        for order in range(3)
    )
    size = model.A * model.epsilon * math.exp(y)
    slope = h1 - h * y**2
    curve = h2 - 2 * h1 * y**2 + h * (y**4 + 2 * y**3)
    return size * h, size * slope / model.sigma, size * curve / model.sigma**2


def diamond_crystal(model: StillingerWeberModel) -> DiamondCrystal | None:
    """The crystal of a model; None where its bonds have no minimum, or reach second neighbours."""
    from scipy.optimize import brentq

    end = model.a * model.sigma
    shortest, longest = end / 4, 0.999 * end
    if not pair_energy(model, shortest)[1] < 0 < pair_energy(model, longest)[1]:
        return None
    bond = float(brentq(lambda r: pair_energy(model, r)[1], shortest, longest, xtol=1e-14, rtol=1e-14))
    return DiamondCrystal(model, bond) if bond * SECOND > end else None
