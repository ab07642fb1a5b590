"""Published melting lines of the Lennard-Jones system, in reduced units. Torch-free.

Densities of both phases along the line: E. A. Mastny and J. J. de Pablo, J. Chem. Phys. 127, 104504 (2007), eqs. (20) and
(21): infinite size, full potential. Pressure of the crystal, and an older line: M. A. van der Hoef, J. Chem. Phys. 113, 8142
(2000), eqs. (20) and (24). The pressure of Mastny and de Pablo's line is that of van der Hoef's crystal at their density.
"""

from __future__ import annotations

import math

_CRYSTAL = (0.908629, -0.041510, 0.514632, -0.708590, 0.428351, -0.095229)
_LIQUID = (0.90735, -0.27120, 0.91784, -1.16270, 0.68012, -0.15284)
_STATIC = (-14.45392093, 6.065940096)
_HARMONIC = (69.833875, -132.86963, 97.438593, -25.848057)
_ANHARMONIC = (
    (13.404069, -20.632066, 11.564825, -2.3064801),
    (-5.5481261, 8.8465978, -5.0258631, 1.0070066),
)
LOWEST, HIGHEST = 0.7, 2.0  # temperatures between which the fits are used


def melting_densities(temperature: float) -> tuple[float, float]:
    """Densities of crystal and liquid where they coexist at a temperature: T^(1/4) sum_n c_n T^-n."""
    inverse = 1 / temperature
    crystal, liquid = (sum(c * inverse**n for n, c in enumerate(fit)) for fit in (_CRYSTAL, _LIQUID))
    return crystal * math.sqrt(math.sqrt(temperature)), liquid * math.sqrt(math.sqrt(temperature))


def crystal_pressure(temperature: float, density: float) -> float:
    """Pressure of the fcc crystal (van der Hoef, eq. 20)."""
    total = 1 / density + density * (2 * _STATIC[0] + 4 * _STATIC[1] * density**2) / temperature
    total += sum(b * density**n for n, b in enumerate(_HARMONIC))
    for n, row in enumerate(_ANHARMONIC):
        total -= sum((n + 1) * a / (m + 1) * density**n * temperature ** (m + 1) for m, a in enumerate(row))
    return density**2 * temperature * total


def melting_pressure(temperature: float) -> float:
    """Pressure of Mastny and de Pablo's melting line."""
    return crystal_pressure(temperature, melting_densities(temperature)[0])


def older_melting_pressure(temperature: float) -> float:
    """Pressure of van der Hoef's melting line (eq. 24): smaller systems; about 0.2 higher."""
    inverse = 1 / temperature
    series = 16.89 - 7.2866 * inverse - 2.9895 * inverse**2
    return math.pow(temperature, 1.25) * math.exp(-0.4759 * math.sqrt(inverse)) * series


def melting_temperature(pressure: float) -> float:
    """Temperature of Mastny and de Pablo's line at a pressure between those at `LOWEST` and `HIGHEST`, by bisection."""
    low, high = LOWEST, HIGHEST
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if melting_pressure(middle) < pressure else (low, middle)
    return 0.5 * (low + high)


def melting_slope(temperature: float) -> float:
    """dT/dP along Mastny and de Pablo's line."""
    step = 1e-3
    return 2 * step / (melting_pressure(temperature + step) - melting_pressure(temperature - step))
