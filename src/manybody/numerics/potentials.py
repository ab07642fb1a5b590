"""Pair potentials by name, as formulas for generated kernels, with the distance at which each ends by itself.

    from manybody.numerics.potentials import WCA, YUKAWA, ends_at
    kernel = WCA.bind({"epsilon": 1.0, "sigma": 1.0})
    forces, energy, virial, pairs = kernel.evaluate(positions, box, cutoff=ends_at(WCA, kernel.values))

Sources: J. D. Weeks, D. Chandler and H. C. Andersen, J. Chem. Phys. 54, 5237 (1971); P. M. Morse, Phys. Rev. 34, 57
(1929); R. A. Buckingham, Proc. R. Soc. A 168, 264 (1938); H. Yukawa, Proc. Phys.-Math. Soc. Japan 17, 48 (1935); soft core:
T. C. Beutler et al., Chem. Phys. Lett. 222, 529 (1994); R. D. Groot and P. B. Warren, J. Chem. Phys. 107, 4423 (1997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.numerics.pairs import LENNARD_JONES, PairPotential

__all__ = [
    "BUCKINGHAM",
    "LENNARD_JONES",
    "LIBRARY",
    "MORSE",
    "SOFT_CORE",
    "SOFT_REPULSION",
    "WCA",
    "YUKAWA",
    "coupling_slope",
    "ends_at",
    "named",
]

_R6 = "(r2*r2*r2/sigma**6)"
_SOFTENED = f"(alpha*(1 - coupling) + {_R6})"

WCA = PairPotential("weeks-chandler-andersen", "4*epsilon*((sigma/r)**12 - (sigma/r)**6) + epsilon", ("epsilon", "sigma"))
"""Lennard-Jones lifted by epsilon, up to its minimum at 2^(1/6) sigma: repulsion alone."""

MORSE = PairPotential("morse", "depth*(1 - exp(-a*(r - place)))**2 - depth", ("depth", "a", "place"))
"""-depth at `place`, curvature 2 depth a^2 there, 0 far away."""

BUCKINGHAM = PairPotential("buckingham", "A*exp(-r/rho) - C/(r2*r2*r2)", ("A", "rho", "C"))
"""Exponential repulsion and dispersion. It falls to minus infinity at r = 0: keep atoms outside its maximum."""

YUKAWA = PairPotential("yukawa", "strength*exp(-kappa*r)/r", ("strength", "kappa"))
"""Coulomb's law screened over 1/kappa; strength is energy times length."""

SOFT_CORE = PairPotential(
    "soft-core", f"4*epsilon*coupling*({_SOFTENED}**(-2) - 1/{_SOFTENED})", ("epsilon", "sigma", "alpha", "coupling")
)
"""Lennard-Jones at coupling l = 1, nothing at 0: 4 epsilon l (1/x^2 - 1/x) with x = alpha (1 - l) + (r/sigma)^6."""

SOFT_REPULSION = PairPotential("soft-repulsion", "a/2*(1 - r)**2", ("a",))
"""The conservative force a (1 - r) of dissipative particle dynamics, up to r = 1."""

LIBRARY: dict[str, PairPotential] = {
    potential.name: potential for potential in (LENNARD_JONES, WCA, MORSE, BUCKINGHAM, YUKAWA, SOFT_CORE, SOFT_REPULSION)
}

_ENDS: dict[str, Callable[[Sequence[float]], float]] = {
    WCA.name: lambda values: 2 ** (1 / 6) * values[1],
    SOFT_REPULSION.name: lambda values: 1.0,
}


def named(name: str) -> PairPotential:
    """A potential of the library; an unknown name raises `InputError`."""
    if name not in LIBRARY:
        raise InputError(
            Problem("pair potential", f"one of {', '.join(LIBRARY)}", f"`{name}`", "Or write it as a PairPotential.")
        )
    return LIBRARY[name]


def ends_at(potential: PairPotential, values: Sequence[float] | np.ndarray) -> float | None:
    """Where energy and force reach zero together, for parameters in the potential's order; None where they never do."""
    end = _ENDS.get(potential.name)
    return None if end is None else float(end(list(values)))


def coupling_slope(r2: Any, epsilon: float, sigma: float, alpha: float, coupling: float) -> Any:
    """du/dcoupling of the soft core, by hand; r2 of any shape, squared lengths.

    With x = alpha (1 - l) + (r/sigma)^6: 4 eps [1/x^2 - 1/x + l alpha (2/x^3 - 1/x^2)]. `numerics.operators` gives the same
    for any formula and all pairs of a system; this is for thermodynamic integration over single pairs, and its check.
    """
    x = alpha * (1 - coupling) + r2 * r2 * r2 / sigma**6
    return 4 * epsilon * (1 / x**2 - 1 / x + coupling * alpha * (2 / x**3 - 1 / x**2))
