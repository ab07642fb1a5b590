"""The Helmholtz energy of the Lennard-Jones fluid by a published equation of state, in reduced units. Torch-free.

Source: J. Kolafa and I. Nezbeda, Fluid Phase Equilib. 100, 1 (1994): hard spheres of diameter d(T), a correction of the second
virial coefficient that fades with density, and a polynomial fitted to simulations of the fluid without any cutoff.
"""

from __future__ import annotations

import math

GAMMA = 1.92907278
DIAMETER = ((-2, 0.011117524), (-1, -0.076383859), (0, 1.080142248), (1, 0.000693129))  # powers of T^(1/2)
DIAMETER_LOG = -0.063920968
VIRIAL = (
    (-7, -0.58544978), (-6, 0.43102052), (-5, 0.87361369), (-4, -4.13749995), (-3, 2.90616279), (-2, -7.02181962),
    (0, 0.02459877),
)  # fmt: skip
POLYNOMIAL = {
    0: {2: 2.01546797, 3: -28.17881636, 4: 28.28313847, 5: -10.42402873},
    -1: {2: -19.58371655, 3: 75.62340289, 4: -120.70586598, 5: 93.92740328, 6: -27.37737354},
    -2: {2: 29.34470520, 3: -112.35356937, 4: 170.64908980, 5: -123.06669187, 6: 34.42288969},
    -4: {2: -13.37031968, 3: 65.38059570, 4: -115.09233113, 5: 88.91973082, 6: -25.62099890},
}  # power of T^(1/2), then of the density


def excess_helmholtz(temperature: float, density: float) -> float:
    """A/N less that of an ideal gas at the same density, in epsilon; fitted from T = 0.7 to 6 and up to the freezing line."""
    root = math.sqrt(temperature)
    diameter = sum(c * root**power for power, c in DIAMETER) + DIAMETER_LOG * math.log(temperature)
    eta = math.pi / 6 * density * diameter**3
    spheres = 5 / 3 * math.log(1 - eta) + eta * (34 - 33 * eta + 4 * eta**2) / (6 * (1 - eta) ** 2)
    virial = sum(c * root**power for power, c in VIRIAL)
    rest = sum(c * root**i * density**j for i, row in POLYNOMIAL.items() for j, c in row.items())
    return temperature * (spheres + density * virial * math.exp(-GAMMA * density**2)) + rest


def added_particle(temperature: float, density: float, atoms: int) -> float:
    """Excess Helmholtz energy that one particle more brings to `atoms` at a density and fixed volume, in epsilon."""
    more = density * (1 + 1 / atoms)
    return (atoms + 1) * excess_helmholtz(temperature, more) - atoms * excess_helmholtz(temperature, density)


def tail(density: float, cutoff: float, sigma: float, epsilon: float) -> float:
    """Energy of one particle with the solvent beyond the cutoff at g(r) = 1: 16/3 pi rho eps s^3 ((s/r_c)^9 / 3 - (s/r_c)^3)."""
    reach = sigma / cutoff
    return 16 / 3 * math.pi * density * epsilon * sigma**3 * (reach**9 / 3 - reach**3)


def pair_energy(r: float, sigma: float, epsilon: float) -> float:
    """u(r) = 4 eps ((s/r)^12 - (s/r)^6)."""
    return 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
