"""What is measured of a driven electrolyte, and what linear theory says of it. No compiler is loaded here.

How far a sound run may be from linear theory is known, too. Sampling: the long modes are Gaussian with known correlations in
time, so the variance of each mean is a sum over modes. The time step: what Heun's method makes of the same linear equations.
What linear theory leaves out: the first correction to the compressibility, known without a field, taken twice.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.electrolyte.known_answers import (
    BoxModes,
    Structure,
    first_correction,
    power_variance,
    relaxation_force,
    relaxation_variance,
)
from manybody.engines.electrolyte.spec import DrivenElectrolyte, IonDynamics
from manybody.engines.electrolyte.structure import long_modes

SIGMAS = 4.0  # standard errors of one run allowed between it and theory
CORRECTIONS = 2.0  # times the first correction beyond linear theory
REACH = 3.5  # k a up to which forces are summed: g = 5e-6 there
LAGS = 200  # samples after which correlations are dropped; they fall at least as exp(-k^2 t)
SMOOTHED = 1.0  # Debye lengths; correlations in space are shown through a Gaussian exp(-k^2 b^2) of this b
SOURCE = (
    "linearised Dean equation: V. Demery and D. S. Dean, J. Stat. Mech. (2016) 023106; S. Mahdisoltani and R. Golestanian, "
    "Phys. Rev. Lett. 126, 158002 (2021)"
)


@dataclass(frozen=True)
class Weights:
    """A number made of structure factors: sum over bins of density S_n + charge S_c, plus `offset`."""

    density: np.ndarray
    charge: np.ndarray
    offset: float = 0.0

    def of(self, density: np.ndarray, charge: np.ndarray) -> np.ndarray:
        """Its values; structure factors [..., bins]."""
        return np.asarray(density @ self.density + charge @ self.charge + self.offset)

    def of_structure(self, structure: Structure) -> float:
        """Its value in a theory."""
        return float(self.of(structure.density, structure.charge))


class StructureNumber(MeasureSpec):
    """A number made of the structure factors of long waves; its first correction is relative to `scale` where it is smaller."""

    methods: ClassVar[tuple[str, ...]] = ("ion-dynamics",)
    scale: ClassVar[float] = 1.0

    @abstractmethod
    def weights(self, modes: BoxModes) -> Weights:
        """How the structure factors make it, over the bins of `long_modes`."""

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _typed(point)
        weights = self.weights(long_modes(system.edge, method.modes))
        values = weights.of(_joined(outputs, "density"), _joined(outputs, "charge"))
        return Samples(values, np.ones(len(values)), method.sample_every)

    def exact(self, point: Point) -> ClosedForm:
        """Linear theory of the waves in this box."""
        system, method = _typed(point)
        modes, theory = long_modes(system.edge, method.modes), system.theory
        weights = self.weights(modes)
        value = weights.of_structure(theory.structure(modes.along, modes.square))
        stepped = weights.of_structure(theory.heun(modes.along, modes.square, method.time_step))
        error = math.sqrt(self._variance(system, method, modes, weights))
        beyond = CORRECTIONS * first_correction(theory, system.coupling) * max(abs(value), self.scale)
        tolerance = SIGMAS * error + abs(stepped - value) + beyond
        return ClosedForm(value, tolerance, _tolerance_from(beyond), SOURCE, stepped - value)

    def _variance(self, system: DrivenElectrolyte, method: IonDynamics, modes: BoxModes, weights: Weights) -> float:
        """Of the mean over one run: that of each wave, and waves are independent."""
        used = np.flatnonzero((weights.density != 0) | (weights.charge != 0))
        lags = method.sample_every * np.arange(LAGS)
        c = system.theory.correlations(modes.along[used], modes.square[used], lags)
        density, charge = (power_variance(c[..., kind, kind]) for kind in (0, 1))
        total = weights.density[used] ** 2 * density + weights.charge[used] ** 2 * charge
        return float((total / modes.count[used]).sum()) / _sample_count(method)


class DensityDiscontinuity(StructureNumber):
    """S_n across the field less S_n along it, extrapolated to k = 0 from one and two waves in the box.

    (4 d(k) - d(2 k)) / 3 with d = S_n across - S_n along: what a correlation of finite range has there is zero, to order k^4.
    """

    summary: ClassVar[str] = "S_n across less S_n along the field as k goes to 0: zero unless correlations fall as 1/r^3"
    symbol: ClassVar[str] = "dS_n(0)"
    unit: ClassVar[str] = ""

    name: Literal["density-discontinuity"] = "density-discontinuity"

    def weights(self, modes: BoxModes) -> Weights:
        """Four bins."""
        density = np.zeros(len(modes.along))
        for waves, share in ((1, 4 / 3), (2, -1 / 3)):
            density[_bin(modes, 0, waves)] += share
            density[_bin(modes, waves, 0)] -= share
        return Weights(density, np.zeros_like(density))


class Screening(StructureNumber):
    """S_c / k^2 along the field, extrapolated to k = 0 from one and two waves in the box.

    1 is perfect screening, Stillinger and Lovett's second moment, exact without a field at any coupling.
    """

    summary: ClassVar[str] = "S_c / k^2 along the field as k goes to 0: 1 where charges are screened"
    symbol: ClassVar[str] = "S_c/k^2"
    unit: ClassVar[str] = ""

    name: Literal["screening"] = "screening"

    def weights(self, modes: BoxModes) -> Weights:
        """Two bins."""
        charge = np.zeros(len(modes.along))
        for waves, share in ((1, 4 / 3), (2, -1 / 3)):
            place = _bin(modes, waves, 0)
            charge[place] = share / modes.square[place]
        return Weights(np.zeros_like(charge), charge)


class CorrelationTail(StructureNumber):
    """r^3 n0 (g - 1) of the density at a distance r along the field, smoothed: a constant where correlations fall as 1/r^3."""

    summary: ClassVar[str] = "r^3 times the correlation of the density, far away along the field"
    symbol: ClassVar[str] = "r^3 h"
    unit: ClassVar[str] = ""
    scale: ClassVar[float] = 0.1

    name: Literal["correlation-tail"] = "correlation-tail"
    distance: float = Field(5.0, gt=0, description="r, Debye lengths; up to half the edge")

    def weights(self, modes: BoxModes) -> Weights:
        """Every bin."""
        row = _towards(modes, np.array([self.distance]))[0]
        return Weights(row, np.zeros_like(row), -float(row.sum()))


class RelaxationForce(MeasureSpec):
    """- <z F_x> over the coupling: the force of the distorted clouds around the ions, against the field.

    In units of kT l_B / l_D^2: it is of first order in the coupling, and so its deviation from linear theory of second.
    """

    summary: ClassVar[str] = "force with which the clouds around the ions hold them back, over the coupling"
    symbol: ClassVar[str] = "f_rel"
    unit: ClassVar[str] = "kT l_B/l_D^2"
    methods: ClassVar[tuple[str, ...]] = ("ion-dynamics",)

    name: Literal["relaxation-force"] = "relaxation-force"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One mean over time a sample."""
        system, method = _typed(point)
        values = _joined(outputs, "relaxation") / system.coupling
        return Samples(values, np.ones(len(values)), method.sample_every)

    def exact(self, point: Point) -> ClosedForm:
        """Linear theory of all waves in this box."""
        system, method = _typed(point)
        modes, theory = BoxModes.within(system.edge, REACH / system.width), system.theory
        value = relaxation_force(theory, 1.0, modes)
        stepped = relaxation_force(theory, 1.0, modes, theory.heun(modes.along, modes.square, method.time_step))
        variance = relaxation_variance(theory, 1.0, modes) / (method.segment * method.segments)
        beyond = CORRECTIONS * first_correction(theory, system.coupling) * abs(value)
        tolerance = SIGMAS * math.sqrt(variance) + abs(stepped - value) + beyond
        return ClosedForm(value, tolerance, _tolerance_from(beyond), SOURCE, stepped - value)


class IonCurrent(MeasureSpec):
    """Mean of z v_x: E less the relaxation force, D / kT being 1. Without interactions it is E."""

    summary: ClassVar[str] = "mean velocity of positive ions less that of negative ones, halved"
    symbol: ClassVar[str] = "j"
    unit: ClassVar[str] = "D/l_D"
    methods: ClassVar[tuple[str, ...]] = ("ion-dynamics",)

    name: Literal["ion-current"] = "ion-current"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One mean over time a sample."""
        system, method = _typed(point)
        values = system.field - _joined(outputs, "relaxation")
        return Samples(values, np.ones(len(values)), method.sample_every)

    def exact(self, point: Point) -> ClosedForm:
        """E less the relaxation force of linear theory."""
        system, held = _typed(point)[0], RelaxationForce().exact(point)
        value, tolerance = system.field - system.coupling * held.value, system.coupling * held.tolerance
        return ClosedForm(value, tolerance, held.tolerance_from, held.source, -system.coupling * held.truncation)


class StructureCurve(MeasureSpec):
    """A structure factor over k, in one direction."""

    methods: ClassVar[tuple[str, ...]] = ("ion-dynamics",)
    unit: ClassVar[str] = ""
    kind: ClassVar[Literal["density", "charge"]]
    is_along: ClassVar[bool]

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a sample; `axis` holds k in inverse Debye lengths."""
        _, method = _typed(point)
        modes, bins = self._bins(point)
        values = _joined(outputs, self.kind)[:, bins]
        return Samples(values, np.ones(len(values)), method.sample_every, np.sqrt(modes.square[bins]))

    def expected(self, point: Point, outputs: Sequence[Output]) -> np.ndarray:
        """Linear theory."""
        system, _ = _typed(point)
        modes, bins = self._bins(point)
        return np.asarray(getattr(system.theory.structure(modes.along, modes.square), self.kind)[bins])

    def _bins(self, point: Point) -> tuple[BoxModes, np.ndarray]:
        system, method = _typed(point)
        modes = long_modes(system.edge, method.modes)
        waves = range(1, method.modes + 1)
        return modes, np.array([_bin(modes, *((n, 0) if self.is_along else (0, n))) for n in waves])


class DensityAlong(StructureCurve):
    """S_n of waves along the field."""

    summary: ClassVar[str] = "structure factor of the density, waves along the field"
    symbol: ClassVar[str] = "S_n"
    kind: ClassVar[Literal["density", "charge"]] = "density"
    is_along: ClassVar[bool] = True

    name: Literal["density-along"] = "density-along"


class DensityAcross(StructureCurve):
    """S_n of waves across the field."""

    summary: ClassVar[str] = "structure factor of the density, waves across the field"
    symbol: ClassVar[str] = "S_n"
    kind: ClassVar[Literal["density", "charge"]] = "density"
    is_along: ClassVar[bool] = False

    name: Literal["density-across"] = "density-across"


class ChargeAlong(StructureCurve):
    """S_c of waves along the field."""

    summary: ClassVar[str] = "structure factor of the charge, waves along the field"
    symbol: ClassVar[str] = "S_c"
    kind: ClassVar[Literal["density", "charge"]] = "charge"
    is_along: ClassVar[bool] = True

    name: Literal["charge-along"] = "charge-along"


class ChargeAcross(StructureCurve):
    """S_c of waves across the field."""

    summary: ClassVar[str] = "structure factor of the charge, waves across the field"
    symbol: ClassVar[str] = "S_c"
    kind: ClassVar[Literal["density", "charge"]] = "charge"
    is_along: ClassVar[bool] = False

    name: Literal["charge-across"] = "charge-across"


class DensityCorrelation(MeasureSpec):
    """r^3 n0 (g - 1) of the density over the distance r along the field, smoothed; level where correlations fall as 1/r^3."""

    summary: ClassVar[str] = "r^3 times the correlation of the density along the field: level where it falls as 1/r^3"
    symbol: ClassVar[str] = "r^3 h"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("ion-dynamics",)

    name: Literal["density-correlation"] = "density-correlation"
    points: int = Field(16, ge=2, le=1000, description="distances up to half the edge")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a sample; `axis` holds r in Debye lengths."""
        _, method = _typed(point)
        r, rows = self._rows(point)
        values = (_joined(outputs, "density") - 1) @ rows.T
        return Samples(values, np.ones(len(values)), method.sample_every, r)

    def expected(self, point: Point, outputs: Sequence[Output]) -> np.ndarray:
        """Linear theory of the waves in this box."""
        system, method = _typed(point)
        modes = long_modes(system.edge, method.modes)
        return np.asarray(self._rows(point)[1] @ (system.theory.structure(modes.along, modes.square).density - 1))

    def _rows(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        system, method = _typed(point)
        r = system.edge / 2 * np.arange(1, self.points + 1) / self.points
        return r, _towards(long_modes(system.edge, method.modes), r)


def _towards(modes: BoxModes, distance: np.ndarray) -> np.ndarray:
    """What makes r^3 h(r) of S_n - 1, [distances, bins]: r^3 / L^3 sum_k exp(-k^2 b^2) cos(k_x r), b = 1."""
    wave = np.cos(distance[:, None] * modes.along) * np.exp(-modes.square * SMOOTHED**2) * 2 * modes.count
    return np.asarray((distance[:, None] / modes.edge) ** 3 * wave)


def _bin(modes: BoxModes, along: int, across: int) -> int:
    """The bin of the modes with so many waves along the field and so many, along an axis, across it."""
    unit = 2 * math.pi / modes.edge
    apart = abs(modes.along / unit - along) + abs(modes.square / unit**2 - along**2 - across**2)
    return int(np.argmin(apart))


def _tolerance_from(beyond: float) -> str:
    return (
        f"{SIGMAS:g} standard errors of one run, the truncation error of the time step, both by linear theory, and {beyond:.2g} "
        f"for what it leaves out: {CORRECTIONS:g} times its first correction, known without a field"
    )


def _sample_count(method: IonDynamics) -> int:
    return method.segments * method.stretch(method.segment).samples


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def _typed(point: Point) -> tuple[DrivenElectrolyte, IonDynamics]:
    assert isinstance(point.system, DrivenElectrolyte)
    assert isinstance(point.method, IonDynamics)
    return point.system, point.method
