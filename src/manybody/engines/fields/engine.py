"""Advances an advected field on a grid, whole or as a slab."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from manybody.core.random import Key
from manybody.engines.fields.known_answers import exact_averages
from manybody.engines.fields.parts import Grid
from manybody.engines.fields.spec import AdvectedField
from manybody.engines.fields.state import FieldState
from manybody.numerics.stencils import HALO, Slab, flux_weights


class FieldEngine:
    """Finite volumes on the periodic square; passes `manybody.testing.engine`.

    The state after any number of steps has the same bits, whether the grid is advanced whole or in slabs.
    """

    def __init__(self, system: AdvectedField, grid: Grid) -> None:
        self.system, self.grid = system, grid
        self.dtype = np.dtype(grid.precision)
        step = grid.time_step
        self._across = flux_weights(system.velocity_x, system.diffusivity, 1 / grid.rows, step)
        self._along = flux_weights(system.velocity_y, system.diffusivity, 1 / grid.columns, step)

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the field at the start; takes the whole grid, so slabs are advanced without it."""
        return float(exact_averages(self.system, self.grid.rows, self.grid.columns, 0.0).std())

    def init(self, key: Key) -> FieldState:
        """The field at the start; nothing about it is random."""
        return FieldState(self.start(0, self.grid.rows))

    def start(self, first: int, last: int) -> np.ndarray:
        """Rows first to last (exclusive) of the field at the start, [last - first, columns]."""
        return exact_averages(self.system, self.grid.rows, self.grid.columns, 0.0, first, last).astype(self.dtype)

    def slab(self, rows: int, halo: int) -> Slab:
        """Room for a slab of this grid with `halo` rows on either side."""
        return Slab(rows, halo, self._across, self._along, self.grid.columns, self.dtype)

    def step(self, state: FieldState, steps: int = 1) -> FieldState:
        """The state `steps` time steps later; the same bits for the same state."""
        slab = self.slab(self.grid.rows, HALO)
        values = state.field
        for _ in range(steps):
            slab.load(values[-HALO:], values, values[:HALO])
            slab.advance()
            values = slab.values
        return FieldState(values.copy(), state.step + steps)

    def observables(self, state: FieldState) -> dict[str, float]:
        """Mean and variance over the square, exactly rounded, so that they do not depend on the order of the cells."""
        return {"mean": self.mean(state.field), "variance": self.variance(state.field)}

    def conserved(self, state: FieldState) -> dict[str, float]:
        """The mean, in standard deviations of the field at the start."""
        return {"mean": self.mean(state.field) / self.spread}

    def symmetric(self, state: FieldState, key: Key) -> Iterator[tuple[str, FieldState]]:
        """A random image of `state` under each symmetry of the system."""
        rows, columns = key.generator().integers(0, (self.grid.rows, self.grid.columns))
        yield "translation by whole cells", FieldState(np.roll(state.field, (int(rows), int(columns)), (0, 1)), state.step)

    def mean(self, field: np.ndarray) -> float:
        """The mean over all cells, exactly rounded."""
        return math.fsum(field.ravel().tolist()) / field.size

    def variance(self, field: np.ndarray) -> float:
        """The variance over all cells, the sum of squares exactly rounded."""
        rest = field.astype(np.float64) - self.mean(field)
        return math.fsum((rest * rest).ravel().tolist()) / field.size

    def error(self, state: FieldState) -> float:
        """Root mean square deviation from the exact solution, in standard deviations of the field at the start."""
        time = state.step * self.grid.time_step
        rest = state.field.astype(np.float64) - exact_averages(self.system, self.grid.rows, self.grid.columns, time)
        return math.sqrt(math.fsum((rest * rest).ravel().tolist()) / rest.size) / self.spread
