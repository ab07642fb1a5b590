"""What is known of rigid water without simulating it. Torch-free.

Sources: dipole moments, SklogWiki and the papers of the models (SPC/E 2.351 D, TIP3P 2.347 D); equipartition, L. D. Landau
and E. M. Lifshitz, Statistical Physics, section 44.
"""

from __future__ import annotations

import math

DEBYE = 0.0208194343  # e nm: 1e-21 / 299792458 C m over the elementary charge


def dipole(bond: float, angle: float, charge: float) -> float:
    """Dipole moment of a molecule with `charge` e on both ends of two bonds (nm) at an angle (degrees): 2 q b cos(a/2), debye."""
    return 2 * charge * bond * math.cos(math.radians(angle) / 2) / DEBYE


def energy_spread(freedom: float) -> float:
    """Standard deviation of a kinetic energy of so many degrees of freedom over its mean: sqrt(2 / freedom)."""
    return math.sqrt(2 / freedom)
