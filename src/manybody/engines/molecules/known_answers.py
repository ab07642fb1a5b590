"""What is known of rigid water without simulating it. Torch-free.

Sources: dipole moments, SklogWiki and the papers of the models (SPC/E 2.351 D, TIP3P 2.347 D); equipartition, L. D. Landau
and E. M. Lifshitz, Statistical Physics, section 44; swaps of harmonic systems, D. A. Kofke, J. Chem. Phys. 117, 6911 (2002).
"""

from __future__ import annotations

import math

from scipy.special import betainc

DEBYE = 0.0208194343  # e nm: 1e-21 / 299792458 C m over the elementary charge


def dipole(bond: float, angle: float, charge: float) -> float:
    """Dipole moment of a molecule with `charge` e on both ends of two bonds (nm) at an angle (degrees): 2 q b cos(a/2), debye."""
    return 2 * charge * bond * math.cos(math.radians(angle) / 2) / DEBYE


def energy_spread(freedom: float) -> float:
    """Standard deviation of a kinetic energy of so many degrees of freedom over its mean: sqrt(2 / freedom)."""
    return math.sqrt(2 / freedom)


def harmonic_acceptance(freedom: float, kT: float, other_kT: float) -> float:
    """How often replica exchange accepts a swap of two systems of `freedom` harmonic degrees of freedom.

    Their energies have gamma distributions of freedom / 2. The mean of min(1, exp(..)) over both is twice the chance that
    the cold one has the higher energy: 2 I_x(freedom / 2, freedom / 2), x = kT_cold / (kT_cold + kT_hot), with the regularised
    incomplete beta function I.
    """
    cold, hot = sorted((kT, other_kT))
    return 2 * float(betainc(freedom / 2, freedom / 2, cold / (cold + hot)))
