"""Cubic crystals of one atom a cell under an embedded-atom potential, without simulating them. Torch-free.

With psi(r) = phi(r) + 2 F'(rho) rho(r) as an effective pair potential and the sums over all other sites R of the lattice:

- energy an atom: F(rho) + 1/2 sum phi(R), rho = sum rho(R);
- pressure: -1/(3 Omega) 1/2 sum psi'(R) R;
- elastic constants where the pressure vanishes: C_abcd = [1/2 sum (psi'' - psi'/R) R_a R_b R_c R_d / R^2 + F'' W_ab W_cd] over
  Omega, W_ab = sum rho'(R) R_a R_b / R;
- dynamical matrix: D(k) = sum [1 - cos(k.R)] H(R) + F'' g g^T, H the Hessian of psi, g = sum rho'(R) R/|R| sin(k.R);
- classical vibrations of N atoms whose centre of mass rests: free energy kT/2 sum_k ln det D(k) + f(T), so a thermal pressure
  -(kT/2) d/dV sum_k ln det D(k), to first order in T. A mean potential energy of kT/2 each: 3/2 (N - 1) kT.

Sources: M. S. Daw and M. I. Baskes, Phys. Rev. B 29, 6443 (1984); M. Born and K. Huang, Dynamical Theory of Crystal Lattices
(1954), sections 4 and 11 to 13; Sutton and Chen's closed forms: Phil. Mag. Lett. 61, 139 (1990).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
BASES = {"sc": [(0, 0, 0)], "bcc": [(0, 0, 0), (1, 1, 1)], "fcc": [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]}  # half edges
STRAIN = 1e-4  # of the lattice constant in central differences over it: errors of 1e-8, round-off of 1e-11


@dataclass(frozen=True)
class Splines:
    """phi, rho and F of an element with their first and second derivatives; phi and rho vanish from `cutoff` on."""

    pair: tuple[Function, Function, Function]
    density: tuple[Function, Function, Function]
    embedding: tuple[Function, Function, Function]
    cutoff: float


@dataclass(frozen=True)
class BravaisCrystal:
    """An infinite crystal with one atom a primitive cell: `lattice` is sc, bcc or fcc, `edge` that of its cubic cell."""

    potential: Splines
    lattice: str
    edge: float

    @property
    def volume(self) -> float:
        """Omega, of an atom."""
        return self.edge**3 / len(BASES[self.lattice])

    @cached_property
    def sites(self) -> np.ndarray:
        """All other sites within the cutoff, [sites, 3]."""
        reach = math.ceil(self.potential.cutoff / self.edge)
        cells = np.stack(np.meshgrid(*[np.arange(-reach - 1, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
        found = self.edge * (cells + 0.5 * np.array(BASES[self.lattice])).reshape(-1, 3)
        distance = np.linalg.norm(found, axis=1)
        return np.asarray(found[(distance > 1e-6) & (distance < self.potential.cutoff)])

    @cached_property
    def distances(self) -> np.ndarray:
        """|R|, [sites]."""
        return np.asarray(np.linalg.norm(self.sites, axis=1))

    @cached_property
    def rho(self) -> float:
        """The density at an atom."""
        return float(self.potential.density[0](self.distances).sum())

    def embedded(self, derivative: int) -> float:
        """F, F' or F'' at an atom."""
        return float(self.potential.embedding[derivative](np.array([self.rho]))[0])

    def effective(self, derivative: int) -> np.ndarray:
        """psi' or psi'' at all sites."""
        pair, density = self.potential.pair[derivative], self.potential.density[derivative]
        return pair(self.distances) + 2 * self.embedded(1) * density(self.distances)

    @property
    def energy(self) -> float:
        """Energy of an atom, eV."""
        return self.embedded(0) + 0.5 * float(self.potential.pair[0](self.distances).sum())

    @property
    def pressure(self) -> float:
        """eV/angstrom^3."""
        return -float((self.effective(1) * self.distances).sum()) / (6 * self.volume)

    @property
    def bulk_modulus(self) -> float:
        """-V dp/dV, eV/angstrom^3, at any pressure."""
        up, down = (self.dilated(1 + sign * STRAIN).pressure for sign in (1, -1))
        return -(up - down) / (6 * STRAIN)

    def dilated(self, factor: float) -> BravaisCrystal:
        """The crystal with its edge multiplied."""
        return BravaisCrystal(self.potential, self.lattice, factor * self.edge)

    def relaxed(self) -> BravaisCrystal:
        """The crystal at zero pressure, by Newton's method."""
        crystal = self
        for _ in range(50):
            change = crystal.pressure / (3 * crystal.bulk_modulus)
            crystal = crystal.dilated(1 + change)
            if abs(change) < 1e-13:
                break
        return crystal

    def elastic(self) -> tuple[float, float, float]:
        """c11, c12 and c44 at zero pressure, eV/angstrom^3."""
        r, x = self.distances, self.sites
        weight = 0.5 * (self.effective(2) - self.effective(1) / r) / r**2
        slope = self.potential.density[1](r) / r
        bend = self.embedded(2) * float((slope * x[:, 0] ** 2).sum()) ** 2
        c11 = float((weight * x[:, 0] ** 4).sum()) + bend
        c12 = float((weight * x[:, 0] ** 2 * x[:, 1] ** 2).sum()) + bend
        c44 = float((weight * x[:, 0] ** 2 * x[:, 1] ** 2).sum())
        return c11 / self.volume, c12 / self.volume, c44 / self.volume

    def dynamical(self, k: np.ndarray) -> np.ndarray:
        """D(k) [waves, 3, 3], eV/angstrom^2 (not divided by the mass), for waves k [waves, 3]."""
        r, x = self.distances, self.sites
        unit, first, second = x / r[:, None], self.effective(1), self.effective(2)
        along = np.einsum("ra,rb->rab", unit, unit)
        hessian = (second - first / r)[:, None, None] * along + (first / r)[:, None, None] * np.eye(3)
        phase = k @ x.T
        g = np.einsum("kr,ra->ka", np.sin(phase), self.potential.density[1](r)[:, None] * unit)
        pairs = np.einsum("kr,rab->kab", 1 - np.cos(phase), hessian)
        return np.asarray(pairs + self.embedded(2) * np.einsum("ka,kb->kab", g, g))

    def waves(self, repeat: tuple[int, int, int]) -> np.ndarray:
        """The waves that fit into so many cubic cells, each once, without k = 0: [N - 1, 3]."""
        grids = [np.arange(n * (1 if self.lattice == "sc" else 2)) for n in repeat]
        steps = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, 3)
        k = 2 * math.pi / self.edge * steps / np.array(repeat)
        # Waves that differ by a reciprocal vector are one: they give the same phase at all sites of the primitive cell.
        primitive = {"sc": np.eye(3), "bcc": np.ones((3, 3)) / 2 - np.eye(3), "fcc": (np.ones((3, 3)) - np.eye(3)) / 2}
        phases = np.round((k @ (self.edge * primitive[self.lattice]).T / (2 * math.pi)) % 1.0, 9) % 1.0
        _, first = np.unique(phases, axis=0, return_index=True)
        return np.asarray(k[np.sort(first)][1:])

    def log_determinant(self, repeat: tuple[int, int, int]) -> float:
        """Sum over the waves of so many cells of ln det D(k)."""
        return float(np.linalg.slogdet(self.dynamical(self.waves(repeat)))[1].sum())

    def thermal_pressure(self, repeat: tuple[int, int, int]) -> float:
        """What vibrations add to the pressure, divided by kT: angstrom^-3. The centre of mass rests."""
        up, down = (self.dilated(1 + sign * STRAIN).log_determinant(repeat) for sign in (1, -1))
        atoms = len(BASES[self.lattice]) * math.prod(repeat)
        return -0.5 * (up - down) / (6 * STRAIN * atoms * self.volume)


def lattice_sum(lattice: str, power: float, reach: int = 30) -> float:
    """S_n = sum over a lattice of edge 1 of r^-n, beyond `reach` edges by an integral; for n > 3."""
    steps = np.arange(-reach, reach)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    total = 0.0
    for base in BASES[lattice]:
        square = ((cells + 0.5 * np.array(base)) ** 2).sum(axis=1)
        inside = (square > 1e-9) & (square < (reach - 1) ** 2)
        total += float(np.power(square[inside], -power / 2).sum())
    return total + 4 * math.pi * len(BASES[lattice]) / ((power - 3) * math.pow(reach - 1, power - 3))


def sutton_chen_crystal(epsilon: float, a: float, n: int, m: int) -> tuple[float, float]:
    """Cohesive energy, eV, and bulk modulus, eV/angstrom^3, of Sutton and Chen's fcc crystal without a cutoff.

    eps S_n (2n - m) / (2m), and n m / 18 times that over a^3 / 4.
    """
    cohesive = epsilon * lattice_sum("fcc", n) * (2 * n - m) / (2 * m)
    return cohesive, n * m / 18 * cohesive / (a**3 / 4)
