"""Kernels of tabulated pair potentials: `pair_template.py` with a look-up in place of a formula.

One compiled kernel serves all tables: the pieces (`tables.Pieces`) are among its parameters. Below the first distance of
the table there is no force, so it gives none that is a number, and dynamics stops there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manybody.numerics.pairs import PairKernel, kernel_digest, kernel_source
from manybody.numerics.tables import Pieces

# A whole register of pairs is looked up at once only where nothing is decided after the loads. So what lies below the table
# lands on a row of its own, which holds no numbers.
LOOKUP = '''
@kernel
def coefficients(parameters):
    """Pieces per unit of r2, the row of r2 = 0, the last row, one over twice the first, and all rows in one."""
    return (parameters[0], parameters[1], parameters[2], 0.5 / parameters[0], parameters[3:])


@kernel
def _row(r2, c):
    """The row of r2, and how far r2 lies in its piece, from 0 to 1."""
    place = r2 * c[0] + c[1]
    kept = place if place < c[2] else c[2]
    kept = kept if kept > 0.0 else 0.0
    row = np.uint64(kept)
    return np.uint64(4) * row, place - row


@kernel
def pair_energy(r2, inverse, c):
    """The energy where the piece begins, less the integral of the force."""
    at, t = _row(r2, c)
    rows = c[4]
    first, second, third = rows[at + np.uint64(1)], rows[at + np.uint64(2)], rows[at + np.uint64(3)]
    return rows[at] - c[3] * t * (first + t * (0.5 * second + t * (1.0 / 3.0) * third))


@kernel
def pair_force(r2, inverse, c):
    """-2 du/d(r2), a polynomial of second degree."""
    at, t = _row(r2, c)
    rows = c[4]
    return rows[at + np.uint64(1)] + t * (rows[at + np.uint64(2)] + t * rows[at + np.uint64(3)])


'''


@dataclass(frozen=True)
class TabulatedPotential:
    """What the kernel of every table is generated from (`pairs.Generated`)."""

    name: str = "table"

    @property
    def digest(self) -> str:
        """The identity of the kernel: the look-up and all the code it is compiled with."""
        return kernel_digest(LOOKUP)

    def source(self) -> str:
        """The text of the kernel."""
        return kernel_source("Pair kernel of tables.", LOOKUP)


def table_kernel(pieces: Pieces) -> PairKernel:
    """The compiled kernel with the pieces of a table; its cutoff is at most where they end."""
    a, b, c, d = pieces.coefficients.T
    rows = np.full((1 + len(a), 4), math.nan)  # the first is for what lies below the table
    rows[1:] = np.stack([a, *(-2 * pieces.per_square * slope for slope in (b, 2 * c, 3 * d))], axis=1)
    origin = 1 - pieces.low * pieces.per_square
    return PairKernel(TabulatedPotential(), np.array([pieces.per_square, origin, len(a), *rows.ravel()]))
