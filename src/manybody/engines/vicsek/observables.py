"""What is measured of a flock, and what is exactly known of it. No compiler is loaded here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.dynamics import segments
from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.vicsek.known_answers import (
    balance_variance,
    mean_cosine,
    rayleigh_order,
    seen_by_all,
    seen_by_all_variance,
    walk_displacement,
)
from manybody.engines.vicsek.spec import VicsekDynamics, VicsekFlock

SIGMAS = 4.0  # standard errors of one run allowed between it and theory
ALIGNED = 1e-6  # how far from 1 the order of a flock without noise may be: it comes as close as one waits long
FULL = 2 * math.pi * (1 - 1e-12)
DERIVED = "derived from the model of T. Vicsek et al., Phys. Rev. Lett. 75, 1226 (1995)"


class OrderParameter(MeasureSpec):
    """phi = |sum exp(i theta)| / N: 1 where all head the same way."""

    summary: ClassVar[str] = "length of the mean heading: 1 where all head the same way"
    symbol: ClassVar[str] = "phi"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("vicsek-dynamics",)

    name: Literal["order-parameter"] = "order-parameter"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, _joined(outputs, "order"))

    def exact(self, point: Point) -> ClosedForm | None:
        """1 without noise, where particles see each other; sqrt(pi / (4 N)) where headings are independent."""
        limit = _Limit(point)
        if limit.is_silent:
            return ClosedForm(1.0, ALIGNED, "aligning without noise only approaches 1", DERIVED)
        if not limit.is_independent:
            return None
        value = rayleigh_order(limit.particles)
        # What the series leaves out is below 1 / (16 N^2) of the value from N = 2 on; Rayleigh's variance is (4 / pi - 1) of its
        # square.
        error = value * math.sqrt(4 / math.pi - 1) / limit.root_samples
        return ClosedForm(value, value / (16 * limit.particles**2) + SIGMAS * error, _FROM, f"mean of Rayleigh's law; {DERIVED}")


class SquaredOrder(MeasureSpec):
    """phi^2, the mean of cos(theta_i - theta_j) over all pairs, each particle with itself among them."""

    summary: ClassVar[str] = "square of the order parameter: mean cosine between any two headings"
    symbol: ClassVar[str] = "phi^2"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("vicsek-dynamics",)

    name: Literal["squared-order"] = "squared-order"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, _joined(outputs, "order") ** 2)

    def exact(self, point: Point) -> ClosedForm | None:
        """q^2 + (1 - q^2) / N where each particle sees all; 1 / N where headings are independent."""
        limit = _Limit(point)
        if limit.is_independent:
            error = math.sqrt(1 - 1 / limit.particles) / limit.particles / limit.root_samples
            return ClosedForm(1 / limit.particles, SIGMAS * error, _FROM, DERIVED)
        if not limit.sees_all or limit.is_silent:
            return None
        value = seen_by_all(limit.system.noise, limit.particles)
        error = math.sqrt(seen_by_all_variance(limit.system.noise, limit.particles)) / limit.root_samples
        return ClosedForm(value, SIGMAS * error, _FROM, DERIVED)


class OrderBalance(MeasureSpec):
    """phi^2 - q^2 Psi^2 - (1 - q^2) / N, Psi the order of the directions that the last step turned at random: 0 on average."""

    summary: ClassVar[str] = "squared order less what the last step's turns leave of its directions' order: zero on average"
    symbol: ClassVar[str] = "phi^2 - <phi^2|psi>"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("vicsek-dynamics",)

    name: Literal["order-balance"] = "order-balance"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system = _typed(point)[0]
        kept = mean_cosine(system.noise) ** 2
        expected = kept * _joined(outputs, "direction_order") ** 2 + (1 - kept) / system.particles
        return _samples(point, _joined(outputs, "order") ** 2 - expected)

    def exact(self, point: Point) -> ClosedForm:
        """0, whatever the density, the radius and the noise; samples do not correlate."""
        limit = _Limit(point)
        error = math.sqrt(balance_variance(limit.system.noise, limit.particles)) / math.sqrt(limit.samples)
        return ClosedForm(0.0, SIGMAS * error + 1e-12, "4 standard errors of one run, at most, and round-off", DERIVED)


class HeadingCorrelation(MeasureSpec):
    """<cos(theta(t + lag) - theta(t))>, the lag being the time between samples."""

    summary: ClassVar[str] = "correlation of a particle's headings over the time between samples"
    symbol: ClassVar[str] = "<cos dtheta>"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("vicsek-dynamics",)

    name: Literal["heading-correlation"] = "heading-correlation"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, _joined(outputs, "heading_correlation"))

    def exact(self, point: Point) -> ClosedForm | None:
        """q^lag where headings are independent."""
        limit = _Limit(point)
        if not limit.is_independent:
            return None
        q, q2 = (mean_cosine(limit.system.noise, times) ** limit.stride for times in (1, 2))
        error = math.sqrt((1 + q2) / 2 - q * q) / math.sqrt(limit.samples * limit.particles)
        return ClosedForm(q, SIGMAS * error, _FROM, DERIVED)


class FlockDisplacement(MeasureSpec):
    """<|x(t + lag) - x(t)|^2>, the lag being the time between samples."""

    summary: ClassVar[str] = "mean square displacement over the time between samples"
    symbol: ClassVar[str] = "<dr^2>"
    unit: ClassVar[str] = "length^2"
    methods: ClassVar[tuple[str, ...]] = ("vicsek-dynamics",)

    name: Literal["flock-displacement"] = "flock-displacement"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, _joined(outputs, "mean_square_displacement"))

    def exact(self, point: Point) -> ClosedForm | None:
        """That of a random walker with persistence where headings are independent: <r^4> <= 2 <r^2>^2, as in any such walk."""
        limit = _Limit(point)
        if not limit.is_independent:
            return None
        value = walk_displacement(limit.system.noise, limit.system.speed, limit.stride)
        error = value / math.sqrt(limit.samples * limit.particles)
        return ClosedForm(value, SIGMAS * error, _FROM, DERIVED)


class NumberFluctuations(MeasureSpec):
    """Variance over mean of the number of particles in squares of 1/2, 1/4, .. of the edge; over the mean number."""

    summary: ClassVar[str] = "variance over mean of the number of particles in squares, over that mean"
    symbol: ClassVar[str] = "var(n)/<n>"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("vicsek-dynamics",)

    name: Literal["number-fluctuations"] = "number-fluctuations"
    levels: int = Field(4, ge=1, le=8, description="sizes of squares: edge / 2, edge / 4, ..")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration."""
        system, method = _typed(point)
        frames = np.concatenate([np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs])
        sides = 2 ** np.arange(self.levels, 0, -1)
        values = np.array([[_variance_over_mean(frame, system.edge, side) for side in sides.tolist()] for frame in frames])
        return Samples(values, np.ones(len(values)), method.frame_every, system.particles / sides.astype(np.float64) ** 2)

    def expected(self, point: Point, outputs: Sequence[Output]) -> np.ndarray | None:
        """1 - 1 / squares where headings are independent: particles are spread evenly then, and counts are binomial."""
        if not _Limit(point).is_independent:
            return None
        return np.asarray(1 - 0.25 ** np.arange(self.levels, 0, -1))


def _variance_over_mean(frame: np.ndarray, edge: float, side: int) -> float:
    cell = np.floor(frame[:, :2] * (side / edge)).astype(np.int64) % side
    numbers = np.bincount(cell[:, 0] * side + cell[:, 1], minlength=side * side)
    return float(numbers.var() / numbers.mean())


_FROM = f"{SIGMAS:g} standard errors of one run, in closed form"


class _Limit:
    """Which exact limit a point is in, and how many samples a run takes."""

    def __init__(self, point: Point) -> None:
        self.system, method = _typed(point)
        self.particles, stretch = self.system.particles, method.stretch(method.segment)
        self.stride, self.samples = stretch.stride, segments(method.duration, method.segment) * stretch.samples
        self.is_silent = self.system.noise == 0 and self.system.radius > 0
        self.is_independent = self.system.noise >= FULL or (self.system.radius == 0 and self.system.noise > 0)
        self.sees_all = self.system.radius > self.system.edge / math.sqrt(2)

    @property
    def root_samples(self) -> float:
        """The root of the number of independent samples of phi or phi^2.

        Where each particle sees all, or turns fully at random, all samples are; else the difference of two headings forgets by
        q^2 a step, which makes (1 - c) / (1 + c) of the samples independent, c = q^(2 lag).
        """
        free = self.system.radius == 0 and self.system.noise < FULL
        kept = mean_cosine(self.system.noise) ** (2 * self.stride) if free else 0.0
        return math.sqrt(self.samples * (1 - kept) / (1 + kept))


def _samples(point: Point, values: np.ndarray) -> Samples:
    return Samples(values, np.ones(len(values)), _typed(point)[1].sample_every)


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def _typed(point: Point) -> tuple[VicsekFlock, VicsekDynamics]:
    assert isinstance(point.system, VicsekFlock)
    assert isinstance(point.method, VicsekDynamics)
    return point.system, point.method
