"""What is measured of an advected field, and what theory says of it. Neither torch nor Numba is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.fields.known_answers import exact_averages, exact_variances, truncation_errors
from manybody.engines.fields.spec import ROUNDING, AdvectedField, FiniteVolume

MARGIN = 1.001  # of the truncation error: it is exact but for the modes that the grid folds onto others
SOURCE = "exact solution; scheme analysed mode by mode (J. von Neumann)"


class FieldError(MeasureSpec):
    """Root mean square deviation from the exact solution, over the standard deviation at the start; mean over the run."""

    summary: ClassVar[str] = "deviation from the exact solution, relative to the field at the start"
    symbol: ClassVar[str] = "|c - exact| / std"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("finite-volume",)

    name: Literal["field-error"] = "field-error"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample after the start."""
        return _samples(point, outputs, "error")

    def exact(self, point: Point) -> ClosedForm:
        """Zero, within what the scheme's truncation makes of it and round-off."""
        run = _Run(point)
        errors = run.truncation() / run.spread
        return ClosedForm(0.0, MARGIN * float(errors.mean()) + run.rest, run.tolerance_from, SOURCE)


class FieldVariance(MeasureSpec):
    """Variance of the field over the square, <c^2> - <c>^2; mean over the samples of the run. Diffusion lowers it."""

    summary: ClassVar[str] = "variance of the field over the square"
    symbol: ClassVar[str] = "var c"
    unit: ClassVar[str] = "concentration^2"
    methods: ClassVar[tuple[str, ...]] = ("finite-volume",)

    name: Literal["field-variance"] = "field-variance"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample after the start."""
        return _samples(point, outputs, "variance")

    def exact(self, point: Point) -> ClosedForm:
        """That of the exact solution. A field that deviates by e from one of standard deviation s: within 2 s e + e^2."""
        run = _Run(point)
        variances = exact_variances(run.system, run.method.rows, run.method.columns, run.times)
        errors = MARGIN * run.truncation() + run.rest * run.spread
        within = float(np.mean(2 * np.sqrt(variances) * errors + errors**2))
        return ClosedForm(float(variances.mean()), within, run.tolerance_from, SOURCE)


class _Run:
    """The samples of a point after the start: when they are, and how far the scheme is from the exact solution there."""

    def __init__(self, point: Point) -> None:
        self.system, self.method = _typed(point)
        self.steps = [self.method.stride * sample for sample in range(1, self.method.samples + 1)]
        self.times = [step * self.method.time_step for step in self.steps]
        start = exact_averages(self.system, self.method.rows, self.method.columns, 0.0)
        self.spread = float(start.std())
        # A step rounds every cell about 8 times (see the tolerance of the mean); of these the last step's are all there.
        self.round_off = 8 * self.steps[-1] * ROUNDING[self.method.precision] * float(abs(start).max()) / self.spread
        self.exchanged = self.method.exchange_effect(self.method.bound, self.steps[-1]) / self.spread

    @property
    def tolerance_from(self) -> str:
        """Where the tolerance comes from."""
        exchanged = f", and the bound of the exchange, which adds {self.exchanged:.2g}" if self.exchanged else ""
        return (
            f"the truncation error of the order-4 scheme on {self.method.rows} x {self.method.columns} cells, known mode by "
            f"mode, and the round-off of {self.steps[-1]} steps in {self.method.precision}{exchanged}"
        )

    @property
    def rest(self) -> float:
        """What may lie between the run and the scheme in exact arithmetic, relative."""
        return self.round_off + self.exchanged

    def truncation(self) -> np.ndarray:
        """Root mean square deviation of the scheme in exact arithmetic at each sample, [samples]."""
        return truncation_errors(self.system, self.method.rows, self.method.columns, self.method.time_step, self.steps)


def _samples(point: Point, outputs: Sequence[Output], series: str) -> Samples:
    _, method = _typed(point)
    values = np.asarray(outputs[-1].arrays[series][1:], dtype=np.float64)
    return Samples(values, np.ones(len(values)), method.sample_every)


def _typed(point: Point) -> tuple[AdvectedField, FiniteVolume]:
    assert isinstance(point.system, AdvectedField)
    assert isinstance(point.method, FiniteVolume)
    return point.system, point.method
