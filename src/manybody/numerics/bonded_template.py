"""The template of bonded kernels made from formulas. `bonded_formulas.py` replaces the part between the marks.

As it stands it is a torsion held at an angle, p_0 / 2 wrapped(q - p_1)^2, so that it can be read, linted and run like any
other module. Coordinates and their gradients are those of `collective.py`. Positions are whole: no image is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.collective import angle_and_gradient, distance_and_gradient, torsion_and_gradient, wrapped
from manybody.numerics.jit import exact_kernel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COORDINATES = (distance_and_gradient, angle_and_gradient, torsion_and_gradient)


# --- formula ---
coordinate = COORDINATES[2]


@exact_kernel
def energy_and_slope(q: float, p: Array) -> tuple[float, float]:
    """u and du/dq at a coordinate q, with the parameters p of a term."""
    t0 = wrapped(q - p[1])
    return float(0.5 * p[0] * t0**2), float(p[0] * t0)


@exact_kernel
def slopes(q: float, p: Array, out: Array) -> None:
    """du/dq, and du/dp_k for each parameter k, into out [1 + parameters]."""
    t0 = wrapped(q - p[1])
    out[0] = p[0] * t0
    out[1] = 0.5 * t0**2
    out[2] = -p[0] * t0


# --- end of formula ---


@exact_kernel
def add_forces(x: Array, atoms: Indices, parameters: Array, f: Array) -> float:
    """The energy of terms of `atoms` [terms, members] with `parameters` [terms, parameters]; forces are added to f [atoms, 3]."""
    total, gradient = 0.0, np.empty((4, 3))
    for t in range(atoms.shape[0]):
        energy, slope = energy_and_slope(coordinate(x, atoms[t], gradient), parameters[t])
        total += energy
        for n in range(atoms.shape[1]):
            for d in range(3):
                f[atoms[t, n], d] -= slope * gradient[n, d]
    return total


@exact_kernel
def add_gradients(x: Array, atoms: Indices, parameters: Array, by_atom: Array, by_parameter: Array) -> None:
    """The gradient of the energy: by positions it is added to by_atom [atoms, 3]; by_parameter [terms, parameters] is set."""
    gradient, out = np.empty((4, 3)), np.empty(1 + parameters.shape[1])
    for t in range(atoms.shape[0]):
        slopes(coordinate(x, atoms[t], gradient), parameters[t], out)
        by_parameter[t] = out[1:]
        for n in range(atoms.shape[1]):
            for d in range(3):
                by_atom[atoms[t, n], d] += out[0] * gradient[n, d]
