"""What is measured of molecules: energy, pressure, structure, and how motion shares its energy. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.molecules.known_answers import energy_spread
from manybody.engines.molecules.spec import ForceFieldDynamics, WaterBox

BAR = 16.6053906717  # one kJ/(mol nm^3) in bar


class MolecularEnergy(MeasureSpec):
    """Potential energy a molecule, kJ/mol: of all terms, with the long-range correction where the system has one."""

    summary: ClassVar[str] = "potential energy a molecule"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "kJ/mol"
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)

    name: Literal["molecular-energy"] = "molecular-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        molecules = point.system.molecules if isinstance(point.system, WaterBox) else 1
        return _plain(point, _joined(outputs, "potential_energy") / molecules)


class MolecularPressure(MeasureSpec):
    """Pressure of a box, bar: (2 K + W) / (3 V), with K and W of the molecules' centres of mass."""

    summary: ClassVar[str] = "pressure of a box of molecules, from the virial of their centres of mass"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "bar"
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box",)

    name: Literal["molecular-pressure"] = "molecular-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        volume = _water(point)[0].box ** 3
        total = 2 * _joined(outputs, "centre_kinetic_energy") + _joined(outputs, "virial")
        return _plain(point, BAR * total / (3 * volume))


class CentreTemperature(MeasureSpec):
    """Temperature of the molecules' centres of mass over the one asked for: 1, or energy is not shared evenly.

    It differs from 1 where the degrees of freedom are counted wrongly, or where a thermostat or a constraint feeds one kind
    of motion at the cost of another. With 3 N - 3 such degrees of freedom (3 N where noise acts), <2 K> = that times kT.
    """

    summary: ClassVar[str] = "temperature of the centres of mass over the one asked for (equipartition)"
    symbol: ClassVar[str] = "T_cm/T"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("water-box",)

    name: Literal["centre-temperature"] = "centre-temperature"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _water(point)
        freedom = 3 * system.molecules - (0 if method.thermostat == "langevin" else 3)
        return _plain(point, 2 * _joined(outputs, "centre_kinetic_energy") / (freedom * system.temperature))

    def exact(self, point: Point) -> ClosedForm | None:
        """1, with a thermostat: the kinetic energy is redrawn about once in its relaxation time."""
        system, method = _water(point)
        if method.thermostat == "none":
            return None
        spread = energy_spread(3 * system.molecules - 3)
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
        """One curve a stored configuration; `axis` holds the centres of the bins."""
        system, method = _water(point)
        edges = np.linspace(0.0, system.box / 2, self.bins + 1)
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
        edges = np.array([0.0, self.radius])
        values = _distribution(system, outputs, edges)[:, 0]
        per_volume = (system.molecules - 1) / system.box**3
        return Samples(values * per_volume * 4 / 3 * np.pi * self.radius**3, np.ones(len(values)), method.frame_every)


def _distribution(system: WaterBox, outputs: Sequence[Output], edges: np.ndarray) -> np.ndarray:
    """g_OO of stored configurations between evenly spaced edges [bins + 1] from 0 on: [frames, bins]."""
    from manybody.numerics.histogram import pair_distances  # compiled: only where it is measured

    frames = np.concatenate([np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs])
    counts = pair_distances(np.ascontiguousarray(frames[:, ::3]), system.box, float(edges[-1]), len(edges) - 1)
    pairs = system.molecules * (system.molecules - 1) / system.box**3
    return np.asarray(counts / (pairs * 4 / 3 * np.pi * np.diff(edges**3)))


def _water(point: Point) -> tuple[WaterBox, ForceFieldDynamics]:
    assert isinstance(point.system, WaterBox)
    assert isinstance(point.method, ForceFieldDynamics)
    return point.system, point.method


def _plain(point: Point, values: np.ndarray) -> Samples:
    """One unweighted value a sample."""
    assert isinstance(point.method, ForceFieldDynamics)
    return Samples(values, np.ones(len(values)), point.method.sample_every)


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])
