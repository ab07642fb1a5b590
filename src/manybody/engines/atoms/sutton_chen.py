"""Sutton and Chen's potentials for metals, in closed form and as a setfl file. Torch-free.

E = sum_i F(rho_i) + sum_(pairs) phi(r),  phi = eps (a/r)^n s(r),  rho_i = sum_j (a/r)^m s(r),  F = -c eps sqrt(rho).

s(r) takes both to zero between `switch` and `cutoff`: 1 - x^3 (10 - 15 x + 6 x^2), x from 0 to 1; without it, it is 1.
Source: A. P. Sutton and J. Chen, Phil. Mag. Lett. 61, 139 (1990). For the infinite lattice their c is n S_n / (m sqrt(S_m)), so
that `a` is the lattice constant, and the cohesive energy is eps S_n (2n - m) / (2m), S_k = sum over the lattice of (a/r)^k.

``python -m manybody.engines.atoms.sutton_chen copper.eam.alloy`` writes the file that is shipped.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manybody.engines.atoms.eam_file import EamFile, write_setfl

NO_CUTOFF = np.inf


@dataclass(frozen=True)
class SuttonChen:
    """The parameters of a metal: eps, eV; a, angstroms; c, n and m without a unit; mass, u."""

    element: str
    mass: float
    epsilon: float
    a: float
    c: float
    n: int
    m: int
    switch: float = NO_CUTOFF
    cutoff: float = NO_CUTOFF

    def smooth(self, r: np.ndarray) -> np.ndarray:
        """s(r)."""
        if self.cutoff == NO_CUTOFF:
            return np.ones_like(r)
        x = np.clip((r - self.switch) / (self.cutoff - self.switch), 0.0, 1.0)
        return np.asarray(1 - x**3 * (10 - 15 * x + 6 * x**2))

    def pair(self, r: np.ndarray) -> np.ndarray:
        """phi(r), eV."""
        return np.asarray(self.epsilon * (self.a / r) ** self.n * self.smooth(r))

    def density(self, r: np.ndarray) -> np.ndarray:
        """What an atom at r adds to rho."""
        return np.asarray((self.a / r) ** self.m * self.smooth(r))

    def embedding(self, rho: np.ndarray) -> np.ndarray:
        """F(rho), eV."""
        return np.asarray(-self.c * self.epsilon * np.sqrt(rho))


COPPER = SuttonChen("Cu", 63.546, 1.2382e-2, 3.61, 39.432, 9, 6, switch=5.0, cutoff=7.5)
SPACING, STEP, DENSEST = 0.005, 0.5, 1200.0  # of the tables; rho is 115 in the crystal
SHORTEST = 1.0  # angstroms: below it the tables go on as they do here, for no atoms come closer


def tabulated(metal: SuttonChen, spacing: float = SPACING, step: float = STEP, densest: float = DENSEST) -> EamFile:
    """The potential on even grids, up to its cutoff."""
    r = spacing * np.arange(round(metal.cutoff / spacing) + 1)
    held = np.maximum(r, SHORTEST)
    rho = step * np.arange(round(densest / step) + 1)
    return EamFile(
        (metal.element,), (metal.mass,), (metal.a,),
        metal.embedding(rho)[None], metal.density(held)[None, None], (r * metal.pair(held))[None, None],
        step, spacing, metal.cutoff,
    )  # fmt: skip


def main() -> int:
    """Write copper to the file that is named."""
    if len(sys.argv) != 2:
        print("Usage: python -m manybody.engines.atoms.sutton_chen FILE.eam.alloy", file=sys.stderr)
        return 2
    comments = (
        "Copper: A. P. Sutton and J. Chen, Phil. Mag. Lett. 61, 139 (1990): eps 1.2382e-2 eV, a 3.61 A, c 39.432, n 9, m 6",
        f"Switched off between {COPPER.switch:g} and {COPPER.cutoff:g} angstrom by 1 - x^3 (10 - 15 x + 6 x^2)",
        "Written by python -m manybody.engines.atoms.sutton_chen",
    )
    write_setfl(tabulated(COPPER), Path(sys.argv[1]), comments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
