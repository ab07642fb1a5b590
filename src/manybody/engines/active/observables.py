"""What is measured of active particles, and what theory says of it. No compiler is loaded here.

Particles that do not see each other are known in closed form. A sample is a mean over all of them, over the time between
samples. How far a sound run may be from theory is known too: squared displacements over successive intervals are
independent (they depend on how headings turn within an interval, not on where they point), and in a plane the
displacement of a swimmer has no heavier tail than a Gaussian, <r^4> <= 2 <r^2>^2 (B. ten Hagen, S. van Teeffelen and
H. Loewen, J. Phys.: Condens. Matter 23, 194119 (2011)). So the standard error of the mean square displacement is at most
itself over the square root of the number of samples times particles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.dynamics import segments
from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.active.coloured import theory
from manybody.engines.active.coloured.spec import ActiveOrnsteinUhlenbeckParticles, ColouredNoiseDynamics
from manybody.engines.active.known_answers import (
    heun_mean_square_displacement,
    mean_square_displacement,
    orientation_correlation,
)
from manybody.engines.active.spec import ActiveBrownianParticles, BrownianDynamics

SIGMAS = 4.0  # standard errors of one run allowed between it and theory
SOURCE = "B. ten Hagen, S. van Teeffelen and H. Loewen, J. Phys.: Condens. Matter 23, 194119 (2011); Howse et al. (2007)"

# The critical point of these disks, J. T. Siebert et al., Phys. Rev. E 98, 030601 (2018): Pe 40(2), area fraction 0.597(3)
# of the effective diameter d, with epsilon = 100 kT and D_r = 3 D / d^2.
CRITICAL_PECLET, CRITICAL_FRACTION = 40.0, 0.597
CRITICAL_SOURCE = "J. T. Siebert et al., Phys. Rev. E 98, 030601 (2018): critical point Pe 40(2), area fraction 0.597(3)"
CLEARLY = 1.8  # times above or below the critical Pe: so far off that a box of a thousand disks shows what a large one does
WINDOW = 4.0  # diameters, about, of the squares in which disks are counted: 15 disks where they are packed
PEAK_HEIGHT = 0.05  # of the highest peak; lower ones are bubbles and stragglers
PEAK_DIP = 0.15  # of its height that a peak stands out by: five times the sampling noise of 2000 squares, smoothed


class MeanSquareDisplacement(MeasureSpec):
    """<|x(t + lag) - x(t)|^2>, the lag being the time between samples."""

    summary: ClassVar[str] = "mean square displacement over the time between samples"
    symbol: ClassVar[str] = "<dr^2>"
    unit: ClassVar[str] = "d^2"
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics", "coloured-noise-dynamics")

    name: Literal["mean-square-displacement"] = "mean-square-displacement"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return sampled(point, joined(outputs, "mean_square_displacement"))

    def exact(self, point: Point) -> ClosedForm | None:
        """4 D t + 2 v^2 / D_r^2 (D_r t - 1 + exp(-D_r t)), where particles do not see each other; or `coloured.theory`."""
        if isinstance(point.system, ActiveOrnsteinUhlenbeckParticles):
            return theory.mean_square_displacement(point)
        system, method = _typed(point)
        if system.repulsion:
            return None
        free = _Free(system, method)
        value = free.exact(1)
        return ClosedForm(value, free.truncation(1) + SIGMAS * value / free.root_count, free.tolerance_from, SOURCE)


class OrientationCorrelation(MeasureSpec):
    """<n(t + lag) . n(t)>, the lag being the time between samples; repulsion does not turn headings."""

    summary: ClassVar[str] = "correlation of headings over the time between samples"
    symbol: ClassVar[str] = "<n n'>"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics",)

    name: Literal["orientation-correlation"] = "orientation-correlation"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return sampled(point, joined(outputs, "orientation_correlation"))

    def exact(self, point: Point) -> ClosedForm:
        """exp(-D_r t) with the variance of a cosine, (1 + q^4) / 2 - q^2; increments of angles are exact."""
        system, method = _typed(point)
        free = _Free(system, method)
        q = orientation_correlation(system.rotational_diffusivity, free.lag)
        spread = math.sqrt(0.5 * (1 + q**4) - q**2)
        source = "d theta = sqrt(2 D_r) dW: rotational diffusion in a plane"
        return ClosedForm(q, SIGMAS * spread / free.root_count, free.tolerance_from, source)


class LongTimeDiffusivity(MeasureSpec):
    """(<dr^2>(2 lag) - <dr^2>(lag)) / (4 lag), from displacements over successive lags: <d_1^2 + 2 d_1 . d_2> / (4 lag).

    It tends to the diffusivity for lags long beside 1 / D_r, without what the ballistic start leaves in <dr^2> / (4 lag).
    """

    summary: ClassVar[str] = "diffusivity from the slope of the mean square displacement, lag to twice the lag"
    symbol: ClassVar[str] = "D_eff"
    unit: ClassVar[str] = "D"
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics", "coloured-noise-dynamics")

    name: Literal["long-time-diffusivity"] = "long-time-diffusivity"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = active(point)
        unit = system.active_temperature if isinstance(system, ActiveOrnsteinUhlenbeckParticles) else system.diffusivity
        squares, products = (joined(outputs, name) for name in ("mean_square_displacement", "displacement_product"))
        return sampled(point, (squares + 2 * products) / (4 * method.stretch(method.segment).stride * method.time_step * unit))

    def exact(self, point: Point) -> ClosedForm | None:
        """The slope of the closed form; at long lags 1 + v^2 / (2 D D_r), or 1. None where particles see each other."""
        if isinstance(point.system, ActiveOrnsteinUhlenbeckParticles):
            return theory.long_time_diffusivity(point)
        system, method = _typed(point)
        if system.repulsion:
            return None
        free = _Free(system, method)
        unit = 4 * free.lag * system.diffusivity
        # Standard deviations: at most <dr^2> of the square, 2^(1/2) <dr^2> of twice the product; only neighbours correlate.
        error = (1 + math.sqrt(2)) * math.sqrt(3) * free.exact(1) / free.root_count
        tolerance = (free.truncation(1) + free.truncation(2) + SIGMAS * error) / unit
        return ClosedForm((free.exact(2) - free.exact(1)) / unit, tolerance, free.tolerance_from, SOURCE)


class PropulsionEfficiency(MeasureSpec):
    """<n . (v n + D F)> / v: how fast disks get ahead, beside what they would alone. Low where they block each other."""

    summary: ClassVar[str] = "how fast swimmers get ahead among the others, over their speed alone"
    symbol: ClassVar[str] = "v(rho)/v"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics",)

    name: Literal["propulsion-efficiency"] = "propulsion-efficiency"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample; 1 for particles without propulsion."""
        system, _ = _typed(point)
        values = joined(outputs, "advance")
        return sampled(point, values / system.speed if system.speed else np.ones_like(values))


class ActivePressure(MeasureSpec):
    """rho kT + virial / (2 A) + rho v <advance> kT / (2 D D_r): ideal, from collisions, and from swimming.

    A. P. Solon et al., Phys. Rev. Lett. 114, 198301 (2015): the force a area on a wall, whatever the wall.
    """

    summary: ClassVar[str] = "pressure on a wall: ideal, from collisions, and from swimming"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "kT/d^2"
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics",)

    name: Literal["active-pressure"] = "active-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, _ = _typed(point)
        swim = system.speed * joined(outputs, "advance") / (2 * system.diffusivity * system.rotational_diffusivity)
        return sampled(point, system.density * (1 + swim) + joined(outputs, "virial") / (2 * system.edge**2))


class LocalDensity(MeasureSpec):
    """Probability of the area fraction in squares of about 4 diameters, from stored configurations."""

    summary: ClassVar[str] = "distribution of the local area fraction; two peaks are two phases"
    symbol: ClassVar[str] = "P(phi)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics", "coloured-noise-dynamics")

    name: Literal["local-density"] = "local-density"
    most: float = Field(1.1, gt=0.1, le=1.5, description="largest area fraction shown")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds area fractions of whole numbers of disks."""
        system, method = active(point)
        per_disk = math.pi / 4 / (system.edge / windows(system.edge)) ** 2
        frames = np.concatenate([np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs])
        values = counted(frames, system.edge, math.ceil(self.most / per_disk)) / per_disk
        return Samples(values, np.ones(len(values)), method.frame_every, per_disk * np.arange(values.shape[1]))


class Phases(MeasureSpec):
    """The number of phases: peaks in the distribution of the local density over a segment."""

    summary: ClassVar[str] = "number of phases that coexist: peaks of the local density"
    symbol: ClassVar[str] = "phases"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("brownian-dynamics", "coloured-noise-dynamics")

    name: Literal["phases"] = "phases"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One number a segment, which all of its samples carry."""
        system, method = active(point)
        most = math.ceil(1.5 * (system.edge / windows(system.edge)) ** 2)
        frames = [np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs]
        numbers = [float(peaks(counted(some, system.edge, most).mean(axis=0))) for some in frames]
        return sampled(point, np.repeat(numbers, method.stretch(method.segment).samples))

    def exact(self, point: Point) -> ClosedForm | None:
        """Two phases well above the published critical point at its density, one well below; None elsewhere."""
        if isinstance(point.system, ActiveOrnsteinUhlenbeckParticles):
            return None
        system, _ = _typed(point)
        diameter = system.effective_diameter
        published = (
            math.isclose(system.repulsion, 100.0)
            and math.isclose(system.rotational_diffusivity, 3 * system.diffusivity / diameter**2, rel_tol=0.01)
            and math.isclose(system.area_fraction * diameter**2, CRITICAL_FRACTION, rel_tol=0.02)
        )
        if not published or CRITICAL_PECLET / CLEARLY < system.peclet < CRITICAL_PECLET * CLEARLY:
            return None
        value = 2.0 if system.peclet > CRITICAL_PECLET else 1.0
        return ClosedForm(value, 0.25, f"a segment in four may be read wrongly; {CLEARLY:g} times off Pe 40", CRITICAL_SOURCE)


def windows(edge: float) -> int:
    """Squares along the edge in which disks are counted."""
    return max(1, round(edge / WINDOW))


def counted(frames: np.ndarray, edge: float, most: int) -> np.ndarray:
    """Share of squares that hold 0, 1, .. `most` disks, in configurations [frames, particles, 2 or 3]: [frames, most + 1].

    Sixteen grids are laid, shifted by quarters of a square: a straight interface then fills squares by all degrees, and is
    not taken for a phase. Squares with more disks count as `most`.
    """
    side = windows(edge)
    shares = np.zeros((len(frames), most + 1))
    for row, frame in zip(shares, frames, strict=True):
        for shift in product((0.0, 0.25, 0.5, 0.75), repeat=2):
            column, line = (np.floor(frame[:, :2] * (side / edge) + shift).astype(np.int64) % side).T
            numbers = np.bincount(column * side + line, minlength=side * side)
            row += np.bincount(np.minimum(numbers, most), minlength=most + 1)
    return shares / (16 * side * side)


def peaks(shares: np.ndarray) -> int:
    """Peaks of a distribution [bins], smoothed over neighbouring bins; at least 1."""
    from scipy.signal import find_peaks

    smooth = np.pad(shares, 3)
    for _ in range(2):
        smooth = np.convolve(smooth, [0.25, 0.5, 0.25], mode="same")
    _, found = find_peaks(smooth, height=PEAK_HEIGHT * smooth.max(), prominence=0.0)
    return max(1, int((found["prominences"] >= PEAK_DIP * found["peak_heights"]).sum()))


class _Free:
    """Free particles at a point: the lag, the closed form, what the time step makes of it, and the number of samples."""

    def __init__(self, system: ActiveBrownianParticles, method: BrownianDynamics) -> None:
        self.system, self.method = system, method
        self.stretch = method.stretch(method.segment)
        self.lag = self.stretch.stride * method.time_step
        tasks = segments(method.duration, method.segment)
        self.root_count = math.sqrt(tasks * self.stretch.samples * system.particles)

    @property
    def tolerance_from(self) -> str:
        """Where the tolerance comes from."""
        return f"{SIGMAS:g} standard errors of one run, bounded by theory, and the known truncation error of the time step"

    def exact(self, lags: int) -> float:
        """The mean square displacement after `lags` lags."""
        system = self.system
        return mean_square_displacement(system.diffusivity, system.speed, system.rotational_diffusivity, lags * self.lag)

    def truncation(self, lags: int) -> float:
        """How far Heun's method is from it."""
        system, steps = self.system, lags * self.stretch.stride
        ours = heun_mean_square_displacement(
            system.diffusivity, system.speed, system.rotational_diffusivity, self.method.time_step, steps
        )
        return abs(ours - self.exact(lags))


def sampled(point: Point, values: np.ndarray) -> Samples:
    """One value a sample."""
    return Samples(values, np.ones(len(values)), active(point)[1].sample_every)


def joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    """A series of all segments, [samples]."""
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def active(
    point: Point,
) -> tuple[ActiveBrownianParticles | ActiveOrnsteinUhlenbeckParticles, BrownianDynamics | ColouredNoiseDynamics]:
    """The system and the method of a point."""
    assert isinstance(point.system, ActiveBrownianParticles | ActiveOrnsteinUhlenbeckParticles)
    assert isinstance(point.method, BrownianDynamics | ColouredNoiseDynamics)
    return point.system, point.method


def _typed(point: Point) -> tuple[ActiveBrownianParticles, BrownianDynamics]:
    assert isinstance(point.system, ActiveBrownianParticles)
    assert isinstance(point.method, BrownianDynamics)
    return point.system, point.method
