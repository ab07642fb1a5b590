"""Energies of a published configuration of SPC/E water, term by term, against NIST's reference values.

NIST Standard Reference Simulation Website (SRD 173), "SPC/E Water Reference Calculations - Cuboid Cell - 10 Angstrom cutoff",
configuration 1: dispersion within 10 Angstrom and its long-range correction; Ewald's sum with alpha = 5.6 / L, waves of
|m|^2 < 27, and real space within 10 Angstrom. Its energies have six digits, over k_B in K.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from manybody.numerics.ewald import EwaldParameters, direct_energy, ewald, half_modes, reciprocal_energy, self_energy
from manybody.numerics.lattice_list import lattice_list
from manybody.numerics.nonbonded import COULOMB, CutPairs, ListedPairs, long_range_correction, lorentz_berthelot

KELVIN = 8.31446261815324e-3  # k_B N_A, kJ/mol
EDGE, CUTOFF, ALPHA = 2.0, 1.0, 5.6 / 2.0  # nm
SIGMA, EPSILON, CHARGE = 0.316555789, 78.19743111 * KELVIN, 0.42380
PUBLISHED = {
    "dispersion": 9.95387e4,
    "correction": -8.23715e2,
    "real": -5.58889e5,
    "fourier": 6.27009e3,
    "self": -2.84469e6,
    "intra": 2.80999e6,
    "total": -4.88604e5,
}
SIX_DIGITS = 1e-5  # six digits are good to 5 in 10^6 at worst; physical constants have changed by 10^-6 since


@pytest.fixture(scope="module")
def water():
    """Positions [atoms, 3] in nm, charges, the cell, and the pairs within molecules."""
    x = np.loadtxt(Path(__file__).with_name("nist-spce-100.txt")).reshape(-1, 3) / 10
    charges = np.tile([-2 * CHARGE, CHARGE, CHARGE], len(x) // 3)
    inside = np.array([[n + i, n + j] for n in range(0, len(x), 3) for i, j in ((0, 1), (0, 2), (1, 2))])
    return x, charges, EDGE * np.eye(3), inside


def agrees(found, *names):
    assert found / KELVIN == pytest.approx(sum(PUBLISHED[name] for name in names), rel=SIX_DIGITS)


def dispersion(x):
    """Lennard-Jones energy of the oxygens within the cutoff, by the kernels, and the correction for the rest."""
    c12, c6 = lorentz_berthelot(np.array([SIGMA, 0.0]), np.array([EPSILON, 0.0]))
    pairs = CutPairs(np.tile([0, 1, 1], len(x) // 3), np.zeros(len(x)), c12, c6, CUTOFF, CUTOFF)
    near = lattice_list(x[pairs.members], EDGE * np.eye(3), CUTOFF, 0.02)
    nothing = ListedPairs(np.empty((0, 2), np.int64), *np.empty((3, 0)))
    energy, _, _ = pairs.add_forces(x, pairs.members, near, nothing, np.zeros_like(x))
    counts = np.array([len(x) // 3, 0])
    return energy, long_range_correction(counts, c12, c6, CUTOFF, CUTOFF)[0] / EDGE**3


def test_dispersion_and_its_correction(water):
    energy, correction = dispersion(water[0])
    agrees(energy, "dispersion")
    agrees(correction, "correction")


def test_each_part_of_the_ewald_sum(water):
    """The formulas; NIST counts pairs between molecules in real space, and takes those within them off the waves."""
    x, charges, cell, inside = (torch.from_numpy(values) for values in water)
    products = charges[inside[:, 0]] * charges[inside[:, 1]]
    apart = torch.linalg.norm(x[inside[:, 0]] - x[inside[:, 1]], dim=1)
    screened = (products * torch.erfc(ALPHA * apart) / apart).sum()
    modes = torch.from_numpy(half_modes(cell.numpy(), 2 * math.pi * math.sqrt(26.5) / EDGE))
    agrees(COULOMB * float(direct_energy(x, charges, cell, ALPHA, CUTOFF) - screened), "real")
    agrees(COULOMB * float(reciprocal_energy(x, charges, cell, ALPHA, modes)), "fourier")
    agrees(COULOMB * float(self_energy(charges, ALPHA)), "self")
    agrees(-COULOMB * float((products * torch.erf(ALPHA * apart) / apart).sum()), "intra")


def test_the_total_by_the_kernels(water):
    x, charges, cell, inside = water
    parameters = EwaldParameters(ALPHA, CUTOFF, 2 * math.pi * math.sqrt(26.5) / EDGE)
    whole = ewald(x, charges, cell, parameters, coulomb_constant=COULOMB).energy
    apart = np.linalg.norm(x[inside[:, 0]] - x[inside[:, 1]], axis=1)
    own = COULOMB * (charges[inside[:, 0]] * charges[inside[:, 1]] / apart).sum()
    agrees(whole - own + sum(dispersion(x)), "total")
