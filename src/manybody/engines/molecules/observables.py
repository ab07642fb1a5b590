"""What is measured of molecules: energy, pressure, structure, and how motion shares its energy. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.molecules.known_answers import energy_spread
from manybody.engines.molecules.replicas import ReplicaExchange
from manybody.engines.molecules.spec import (
    HYDROGEN_MASS,
    OXYGEN_MASS,
    WATER_MASS,
    BoxOfMolecules,
    ForceFieldDynamics,
    WaterBox,
)

BAR = 16.6053906717  # one kJ/(mol nm^3) in bar
GRAMS = 1.66053906717e-3  # one u/nm^3 in g/cm^3
FIRM = 0.9  # of half the box: how far pairs are counted where it fluctuates, by some per cent at most
WIDTH, NEAR_TOP = 0.005, 0.025  # nm: intervals of g_OO, and how far about its top the fit reaches; it is 0.03 wide there


class MolecularEnergy(MeasureSpec):
    """Potential energy a molecule, kJ/mol: of all terms, with the long-range correction where the system has one."""

    summary: ClassVar[str] = "potential energy a molecule"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "kJ/mol"
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics", "replica-exchange")

    name: Literal["molecular-energy"] = "molecular-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        molecules = point.system.contents.molecules if isinstance(point.system, BoxOfMolecules) else 1
        return _plain(point, _joined(outputs, "potential_energy") / molecules)


class MolecularPressure(MeasureSpec):
    """Pressure of a box, bar: (2 K + W) / (3 V), with K and W of the molecules' centres of mass."""

    summary: ClassVar[str] = "pressure of a box of molecules, from the virial of their centres of mass"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "bar"
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box", "molecular-box")

    name: Literal["molecular-pressure"] = "molecular-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _box(point)
        volume = system.contents.volume if method.pressure is None else _joined(outputs, "volume")
        total = 2 * _joined(outputs, "centre_kinetic_energy") + _joined(outputs, "virial")
        return _plain(point, BAR * total / (3 * volume))


class MassDensity(MeasureSpec):
    """Mass per volume of a box at constant pressure, g/cm^3."""

    summary: ClassVar[str] = "mass density of a box at constant pressure"
    symbol: ClassVar[str] = "rho"
    unit: ClassVar[str] = "g/cm^3"
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box", "molecular-box")

    name: Literal["mass-density"] = "mass-density"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample; at constant volume it is what the system says."""
        system, method = _box(point)
        volume = np.full(len(_joined(outputs, "virial")), system.contents.volume)
        return _plain(point, GRAMS * system.contents.mass / (volume if method.pressure is None else _joined(outputs, "volume")))


class CentreTemperature(MeasureSpec):
    """Temperature of the molecules' centres of mass over the one asked for: 1, or energy is not shared evenly.

    It differs from 1 where the degrees of freedom are counted wrongly, or where a thermostat or a constraint feeds one kind
    of motion at the cost of another. With 3 N - 3 such degrees of freedom (3 N where noise acts), <2 K> = that times kT.
    """

    summary: ClassVar[str] = "temperature of the centres of mass over the one asked for (equipartition)"
    symbol: ClassVar[str] = "T_cm/T"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box", "molecular-box")

    name: Literal["centre-temperature"] = "centre-temperature"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _box(point)
        freedom = 3 * system.contents.molecules - (0 if method.thermostat == "langevin" else 3)
        return _plain(point, 2 * _joined(outputs, "centre_kinetic_energy") / (freedom * system.temperature))

    def exact(self, point: Point) -> ClosedForm | None:
        """1, with a thermostat: the kinetic energy is redrawn about once in its relaxation time."""
        system, method = _box(point)
        if method.thermostat == "none":
            return None
        spread = energy_spread(3 * system.contents.molecules - 3)
        tolerance = 4 * spread * math.sqrt(2 * method.thermostat_time / method.duration)
        told = "four standard errors of one run whose kinetic energy is redrawn once in the thermostat's relaxation time"
        return ClosedForm(1.0, tolerance, told, "equipartition theorem")


class OxygenDistribution(MeasureSpec):
    """g_OO(r): pairs of oxygens at distance r over what an ideal gas of the same density has."""

    summary: ClassVar[str] = "radial distribution function of the oxygens of water"
    symbol: ClassVar[str] = "g_OO(r)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box",)

    name: Literal["oxygen-distribution"] = "oxygen-distribution"
    bins: int = Field(100, ge=4, le=10_000, description="intervals of r up to half the box")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds the centres of the bins.

        At constant pressure they reach to `FIRM` of half the box that the system begins with.
        """
        system, method = _water(point)
        edges = np.linspace(0.0, system.box / 2 * (1.0 if method.pressure is None else FIRM), self.bins + 1)
        values = _distribution(system, outputs, edges)
        return Samples(values, np.ones(len(values)), method.frame_every, 0.5 * (edges[1:] + edges[:-1]))


class CoordinationNumber(MeasureSpec):
    """How many oxygens are within `radius` of an oxygen: the integral of rho g_OO(r) 4 pi r^2, without a bin's width."""

    summary: ClassVar[str] = "neighbouring molecules of a water molecule, within a radius"
    symbol: ClassVar[str] = "n_OO"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box",)

    name: Literal["coordination-number"] = "coordination-number"
    radius: float = Field(0.33, gt=0, le=0.9, description="distance between oxygens, nm; 0.33 is about the first minimum of g_OO")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a stored configuration."""
        system, method = _water(point)
        pairs, _ = _pairs(system, outputs, np.array([0.0, self.radius]))
        return Samples(pairs[:, 0] / system.molecules, np.ones(len(pairs)), method.frame_every)


class _OxygenPeak(MeasureSpec):
    """The first maximum of g_OO(r), from a quartic through its top, of so many configurations at a time.

    A maximum that is read off noise is too high, so it is one of a fit, to intervals of `WIDTH` within `NEAR_TOP` of the
    highest; their noise then moves it by less than the error of the mean.
    """

    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box",)

    frames: int = Field(40, ge=1, description="configurations that one fit is made to, at most half of all")

    def _tops(self, point: Point, outputs: Sequence[Output]) -> tuple[np.ndarray, float]:
        """Position and height [fits, 2], and the simulated time between fits."""
        system, method = _water(point)
        edges = np.arange(0.2, 0.4, WIDTH)
        whole = _distribution(system, outputs, np.arange(0.0, 0.4, WIDTH))[:, -len(edges) + 1 :]
        fits = max(min(2, len(whole)), len(whole) // self.frames)
        curves = [part.mean(axis=0) for part in np.array_split(whole, fits)]
        return np.array([first_maximum(edges[:-1] + WIDTH / 2, curve) for curve in curves]), method.frame_every * len(
            whole
        ) / fits


class OxygenPeakPosition(_OxygenPeak):
    """Where the first maximum of g_OO(r) is, nm."""

    summary: ClassVar[str] = "where the first maximum of the radial distribution function of the oxygens is"
    symbol: ClassVar[str] = "r_1"
    unit: ClassVar[str] = "nm"

    name: Literal["oxygen-peak-position"] = "oxygen-peak-position"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a fit."""
        tops, interval = self._tops(point, outputs)
        return Samples(tops[:, 0], np.ones(len(tops)), interval)


class OxygenPeakHeight(_OxygenPeak):
    """How high the first maximum of g_OO(r) is."""

    summary: ClassVar[str] = "how high the first maximum of the radial distribution function of the oxygens is"
    symbol: ClassVar[str] = "g_OO(r_1)"
    unit: ClassVar[str] = ""

    name: Literal["oxygen-peak-height"] = "oxygen-peak-height"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a fit."""
        tops, interval = self._tops(point, outputs)
        return Samples(tops[:, 1], np.ones(len(tops)), interval)


class _CentreShell(MeasureSpec):
    """Mean of g(r) of the molecules' centres of mass over a shell: the same of any table whose bins end where it does.

    Pairs are told over N^2 / V, not N (N - 1) / V: in a box of N molecules of a liquid that can hardly be compressed, what
    one of them is missing from is the place that it takes itself, so far away g is 1 - S(0) / N of the former, and 1 / N
    more of the latter (J. L. Lebowitz and J. K. Percus, Phys. Rev. 122, 1675 (1961)). Tables are of large boxes.
    """

    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box",)

    inner: float = Field(gt=0, description="where the shell begins, nm")
    outer: float = Field(gt=0, le=0.9, description="where it ends, nm")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a stored configuration."""
        system, method = _water(point)
        within = [_distribution(system, outputs, np.array([0.0, r]), of_centres=True)[:, 0] for r in (self.inner, self.outer)]
        volumes = self.inner**3, self.outer**3
        values = (within[1] * volumes[1] - within[0] * volumes[0]) / (volumes[1] - volumes[0])
        values *= (system.molecules - 1) / system.molecules
        return Samples(values, np.ones(len(values)), method.frame_every)


class CentrePeakTop(_CentreShell):
    """Mean of g(r) of the centres of mass over the top of its first peak."""

    summary: ClassVar[str] = "mean of the radial distribution function of water's centres of mass over the top of its first peak"
    symbol: ClassVar[str] = "g(top)"

    name: Literal["centre-peak-top"] = "centre-peak-top"
    inner: float = Field(0.27, gt=0, description="where the shell begins, nm")
    outer: float = Field(0.282, gt=0, le=0.9, description="where it ends, nm")


class CentrePeakFlank(_CentreShell):
    """Mean of g(r) of the centres of mass over the rise to its first peak: it tells where the peak is, by 1 % a 10^-4 nm."""

    summary: ClassVar[str] = "mean of the radial distribution function of water's centres of mass over the rise to its first peak"
    symbol: ClassVar[str] = "g(flank)"

    name: Literal["centre-peak-flank"] = "centre-peak-flank"
    inner: float = Field(0.258, gt=0, description="where the shell begins, nm")
    outer: float = Field(0.27, gt=0, le=0.9, description="where it ends, nm")


def first_maximum(r: np.ndarray, g: np.ndarray) -> tuple[float, float]:
    """Position and height of the highest maximum of g(r) [bins]: that of a quartic through what is near its highest value."""
    about = r[np.argmax(g)]
    near = np.abs(r - about) <= NEAR_TOP
    fit = np.polynomial.Polynomial.fit(r[near], g[near], 4)
    fine = np.linspace(about - NEAR_TOP / 2, about + NEAR_TOP / 2, 2001)
    best = int(np.argmax(fit(fine)))
    return float(fine[best]), float(fit(fine[best]))


def _distribution(system: WaterBox, outputs: Sequence[Output], edges: np.ndarray, of_centres: bool = False) -> np.ndarray:
    """g(r) of stored configurations between evenly spaced edges [bins + 1] from 0 on: [frames, bins]; of oxygens or centres."""
    pairs, volumes = _pairs(system, outputs, edges, of_centres)
    ideal = system.molecules * (system.molecules - 1) / volumes
    return np.asarray(pairs / (ideal[:, None] * 4 / 3 * np.pi * np.diff(edges**3)))


def _pairs(
    system: WaterBox, outputs: Sequence[Output], edges: np.ndarray, of_centres: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs of oxygens, or of centres of mass, between even edges from 0 on, [frames, bins], and the volumes [frames]."""
    from manybody.numerics.histogram import pair_distances  # compiled: only where it is measured

    frames = np.concatenate([np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs])
    molecules, reach, bins = frames.reshape(len(frames), -1, 3, 3), float(edges[-1]), len(edges) - 1
    masses = np.array([OXYGEN_MASS, HYDROGEN_MASS, HYDROGEN_MASS]) / WATER_MASS
    places = np.einsum("fmad,a->fmd", molecules, masses) if of_centres else np.ascontiguousarray(molecules[:, :, 0])
    if "frame_edges" not in outputs[0].arrays:
        return pair_distances(places, system.box, reach, bins), np.full(len(places), system.box**3)
    boxes = np.concatenate([np.asarray(output.arrays["frame_edges"]) for output in outputs])[:, 0]
    if boxes.min() < 2 * reach:
        where, came = (
            "system.density",
            f"a box of {boxes.min():.4g} nm, less than twice the {reach:.4g} nm that pairs are counted to",
        )
        raise InputError(Problem(where, "a start near equilibrium", came, "Start at the density that the run came to."))
    counts = [pair_distances(places[n : n + 1], edge, reach, bins) for n, edge in enumerate(boxes.tolist())]
    return np.concatenate(counts), boxes**3


def _water(point: Point) -> tuple[WaterBox, ForceFieldDynamics]:
    assert isinstance(point.system, WaterBox)
    assert isinstance(point.method, ForceFieldDynamics)
    return point.system, point.method


def _box(point: Point) -> tuple[BoxOfMolecules, ForceFieldDynamics]:
    assert isinstance(point.system, BoxOfMolecules)
    assert isinstance(point.method, ForceFieldDynamics)
    return point.system, point.method


def _plain(point: Point, values: np.ndarray) -> Samples:
    """One unweighted value a sample."""
    assert isinstance(point.method, ForceFieldDynamics | ReplicaExchange)
    return Samples(values, np.ones(len(values)), point.method.sample_every)


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])
