"""Kernels of tabulated pair potentials: `pair_template.py` with a look-up in place of a formula.

One compiled kernel serves all tables: the pieces (`tables.Pieces`) are among its parameters. Below the first distance of
the table there is no force, so it gives none that is a number, and dynamics stops there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manybody.numerics.pairs import PairKernel, kernel_digest, kernel_source
from manybody.numerics.tables import Pieces

LOOKUP = '''
@kernel
def coefficients(parameters):
    """The first square, pieces per square, the number of the last piece, and a, b, c, d of all pieces in one row."""
    return (parameters[0], parameters[1], parameters[2], parameters[3:])


@kernel
def pair_energy(r2, inverse, c):
    """a + t (b + t (c + t d)) of the piece that r2 lies in."""
    place = (r2 - c[0]) * c[1]
    piece = np.uint32(min(max(place, 0.0), c[2]))
    t = place - piece
    first = np.uint64(4) * piece
    value = c[3][first] + t * (c[3][first + 1] + t * (c[3][first + 2] + t * c[3][first + 3]))
    return value if r2 >= c[0] else math.nan


@kernel
def pair_force(r2, inverse, c):
    """-2 du/d(r2) of the same."""
    place = (r2 - c[0]) * c[1]
    piece = np.uint32(min(max(place, 0.0), c[2]))
    t = place - piece
    first = np.uint64(4) * piece
    slope = c[3][first + 1] + t * (2.0 * c[3][first + 2] + t * (3.0 * c[3][first + 3]))
    return -2.0 * c[1] * slope if r2 >= c[0] else math.nan


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
    last = len(pieces.coefficients) - 1
    return PairKernel(TabulatedPotential(), np.array([pieces.low, pieces.per_square, last, *pieces.coefficients.ravel()]))
