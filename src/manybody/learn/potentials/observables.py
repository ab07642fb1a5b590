"""What is measured of a learned potential: u(r), its error, and the loss from round to round. Torch is not loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output

METHODS = ("federated-learning",)


class LearnedPotential(MeasureSpec):
    """u(r) after the last round. It is the same for every configuration that it is tested on, so it has no error bar."""

    summary: ClassVar[str] = "the pair potential that was learned"
    symbol: ClassVar[str] = "u(r)"
    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = METHODS

    name: Literal["learned-potential"] = "learned-potential"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """The curve, once for each test configuration."""
        (output,) = outputs
        rows = output.arrays["error"].shape[1]
        seen = _sampled(output)
        return _each(np.tile(output.arrays["potential"][-1][seen], (rows, 1)), output.arrays["r"][seen])

    def expected(self, point: Point, outputs: Sequence[Output]) -> np.ndarray | None:
        """The potential that the configurations came from, over the axis of the samples."""
        (output,) = outputs
        return np.asarray(output.arrays["exact"][_sampled(output)])


class PotentialError(MeasureSpec):
    """Root mean square of u - exact over the pairs of a test configuration, after the last round."""

    summary: ClassVar[str] = "deviation of the learned potential from the exact one, over the pairs of a configuration"
    symbol: ClassVar[str] = "|u - exact|"
    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = METHODS

    name: Literal["potential-error"] = "potential-error"
    allowed: float = Field(0.05, gt=0, description="largest deviation that the check `exact` lets pass, epsilon")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a test configuration."""
        (output,) = outputs
        return _each(output.arrays["error"][-1])

    def exact(self, point: Point) -> ClosedForm:
        """None, within what is allowed."""
        because = "what the study allows (`allowed`), against a well of depth 1"
        return ClosedForm(0.0, self.allowed, because, "the potential that the configurations came from")


class TrainingLoss(MeasureSpec):
    """log10 of the loss on configurations that nobody trained on, after each round, the start included."""

    summary: ClassVar[str] = "loss on unseen configurations after each round"
    symbol: ClassVar[str] = "log10 L(round)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = METHODS

    name: Literal["training-loss"] = "training-loss"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a test configuration."""
        (output,) = outputs
        loss = np.maximum(output.arrays["loss"].T, np.finfo(np.float64).tiny)
        return _each(np.log10(loss), np.arange(loss.shape[1], dtype=np.float64))


def _each(values: np.ndarray, axis: np.ndarray | None = None) -> Samples:
    return Samples(values, np.ones(len(values)), 1.0, axis)


def _sampled(output: Output) -> np.ndarray:
    """The distances at which there are pairs, and where a figure can show both well and wall: u below 8 epsilon."""
    return np.asarray(output.arrays["exact"] < 8.0)
