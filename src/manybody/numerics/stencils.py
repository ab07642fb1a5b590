"""Fourth-order finite volumes for advection and diffusion with constant coefficients, on rows of a periodic field.

The cell averages w obey dw/dt = L w, where L w = -(difference of the fluxes through a cell's four faces). Through the
face between cells 0 and 1 of a line of cells -1, 0, 1, 2 of width h flows

    F = velocity (7 (w0 + w1) - (w-1 + w2)) / 12 - diffusivity (15 (w1 - w0) - (w2 - w-1)) / (12 h),

exact for polynomials of degree 3. Since w are averages along the other direction too, no quadrature is needed. In time
L is constant and linear, so the Taylor polynomial of exp(dt L) to fourth order is a Runge-Kutta method of order 4 in
the form of A. Jameson, W. Schmidt and E. Turkel, AIAA paper 81-1259 (1981):

    a = w + dt/4 L w,  b = w + dt/3 L a,  c = w + dt/2 L b,  w' = w + dt L c.

The last stage is a sum of fluxes, so the total is conserved to round-off.

A cell's new value depends on `HALO` cells on either side a time step, and on nothing else: the kernels are rounded as
written, so the bits do not depend on which rows are computed together.
"""

from __future__ import annotations

import numpy as np

from manybody.numerics.jit import exact_kernel

REACH = 2  # cells that one evaluation of L looks at on either side
STAGES = (1 / 4, 1 / 3, 1 / 2, 1.0)  # of the time step
HALO = REACH * len(STAGES)


def flux_weights(velocity: float, diffusivity: float, spacing: float, time_step: float) -> np.ndarray:
    """Weights [4] of cells -1, 0, 1, 2 in ``time_step / spacing`` times the flux through the face between 0 and 1."""
    advection = velocity * time_step / (12 * spacing)
    diffusion = diffusivity * time_step / (12 * spacing**2)
    return np.array(
        [-advection - diffusion, 7 * advection + 15 * diffusion, 7 * advection - 15 * diffusion, -advection + diffusion]
    )


@exact_kernel
def wrap_columns(field: np.ndarray, first: int, last: int) -> None:
    """Fill the ghost columns of rows first to last (exclusive) from the opposite side, in place; [rows, columns + 4]."""
    columns = field.shape[1] - 4
    for i in range(first, last):
        field[i, 0] = field[i, columns]
        field[i, 1] = field[i, columns + 1]
        field[i, columns + 2] = field[i, 2]
        field[i, columns + 3] = field[i, 3]


@exact_kernel
def taylor_stage(
    base: np.ndarray, slope_of: np.ndarray, result: np.ndarray, across: np.ndarray, along: np.ndarray, fluxes: np.ndarray,
    stage: int, first: int, last: int,
) -> None:  # fmt: skip
    """result = base + `fluxes[3, stage]` dt L slope_of, on rows first to last (exclusive); [rows, columns + 4] each.

    `across` [4] weighs cells along a column (from row to row), `along` [4] along a row. `fluxes` [4, columns + 1] is
    room to work in, its last row the stages' shares of the time step. `result` may be `base`, and must not be
    `slope_of`.
    """
    columns = base.shape[1] - 4
    share = fluxes[3, stage]
    for j in range(columns):
        fluxes[first & 1, j] = (
            across[0] * slope_of[first - 2, j + 2] + across[1] * slope_of[first - 1, j + 2]
            + across[2] * slope_of[first, j + 2] + across[3] * slope_of[first + 1, j + 2]
        )  # fmt: skip
    for i in range(first, last):
        before, after, side = fluxes[i & 1], fluxes[(i + 1) & 1], fluxes[2]
        w0, w1, w2, w3, here, new = slope_of[i - 1], slope_of[i], slope_of[i + 1], slope_of[i + 2], base[i], result[i]
        for j in range(columns):
            after[j] = across[0] * w0[j + 2] + across[1] * w1[j + 2] + across[2] * w2[j + 2] + across[3] * w3[j + 2]
        for j in range(columns + 1):
            side[j] = along[0] * w1[j] + along[1] * w1[j + 1] + along[2] * w1[j + 2] + along[3] * w1[j + 3]
        for j in range(columns):
            new[j + 2] = here[j + 2] - share * ((after[j] - before[j]) + (side[j + 1] - side[j]))
    wrap_columns(result, first, last)


class Slab:
    """Room for `rows` rows of a periodic field and `halo` rows on either side, and the steps that advance them.

    `field` [halo + rows + halo, columns + 4] holds the values, with two ghost columns on either side. A step needs
    `HALO` rows around those it computes, so after n steps all but ``n * HALO`` rows at either end are valid.
    """

    def __init__(self, rows: int, halo: int, across: np.ndarray, along: np.ndarray, columns: int, dtype: np.dtype) -> None:
        self.rows, self.halo, self.columns = rows, halo, columns
        self.field = np.zeros((rows + 2 * halo, columns + 4), dtype)
        self._a, self._b = np.zeros_like(self.field), np.zeros_like(self.field)
        self._across, self._along = across.astype(dtype), along.astype(dtype)
        self._fluxes = np.zeros((4, max(columns + 1, len(STAGES))), dtype)
        self._fluxes[3, : len(STAGES)] = STAGES

    @property
    def values(self) -> np.ndarray:
        """The rows themselves, [rows, columns]: a view."""
        return self.field[self.halo : self.halo + self.rows, 2:-2]

    def load(self, west: np.ndarray, own: np.ndarray, east: np.ndarray) -> None:
        """Fill from the rows and their neighbours, [halo, columns], [rows, columns], [halo, columns]."""
        self.field[: self.halo, 2:-2] = west
        self.values[:] = own
        self.field[self.halo + self.rows :, 2:-2] = east
        wrap_columns(self.field, 0, len(self.field))

    def advance(self, inset: int = 0) -> int:
        """One time step of the rows that have valid neighbours; `inset` rows at either end have none. The new inset."""
        first, last = inset, len(self.field) - inset
        stages = ((self.field, self._a), (self._a, self._b), (self._b, self._a), (self._a, self.field))
        for stage, (slope_of, result) in enumerate(stages):
            first, last = first + REACH, last - REACH
            taylor_stage(self.field, slope_of, result, self._across, self._along, self._fluxes, stage, first, last)
        return first
