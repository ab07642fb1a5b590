"""What is measured of coexistence: the melting temperature, the share of the crystal, the pressure along the box. Torch-free.

The potential that is run is cut and shifted; the melting line is that of the full one. What the full potential adds to the free
energy of an atom, w, is measured in either phase (first order of perturbation theory). At the same temperature both then
coexist at a pressure that is higher by

    dP = -(w_crystal - w_liquid) / (v_crystal - v_liquid),        v = 1 / density,

as the common tangent has it; at g(r) = 1 that is a rho_crystal rho_liquid, which the pressure of the run allows for. What is
left between the two is carried over with the slope of the published line.

Velocity Verlet follows H + dt^2 (v U'' v / 12 - f^2 / 24) (E. Hairer, C. Lubich and G. Wanner, Acta Numerica 12, 399 (2003),
section 4). So with f^2 the mean square of a force's component, kT = <v^2> + dt^2 <f^2> / 6: at dt = 0.004 a thousandth more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.core.units import Time
from manybody.engines.particles.melting.known_answers import melting_slope
from manybody.engines.particles.melting.spec import CoexistenceDynamics, LennardJonesCoexistence


class MeltingTemperature(MeasureSpec):
    """Temperature of crystal and melt that coexist, carried to the pressure asked for and to the full potential.

    Each layer that freezes warms the box, so that the temperature remembers itself for tens of tau: a sample is its mean over a
    `window`, long enough for samples to be nearly independent.
    """

    summary: ClassVar[str] = "temperature at which crystal and melt coexist, of the full potential at its pressure"
    symbol: ClassVar[str] = "T_m"
    unit: ClassVar[str] = "epsilon/k_B"
    methods: ClassVar[tuple[str, ...]] = ("coexistence-dynamics",)

    name: Literal["melting-temperature"] = "melting-temperature"
    window: Time = Field(50.0, gt=0, description="simulated time that a sample is the mean of")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a window, or one in all where the run is shorter; what is left over at the beginning is not used."""
        system, method = _typed(point)
        at = system.virial_pressure + tail_pressure(outputs[0].document["phases"])
        values = _joined(outputs, "temperature") + melting_slope(system.temperature) * (system.pressure - at)
        values += method.time_step**2 * float(_joined(outputs, "force_square").mean()) / 6
        each = min(len(values), max(1, round(self.window / method.sample_every)))
        means = values[len(values) % each :].reshape(-1, each).mean(axis=1)
        return Samples(means, np.ones(len(means)), each * method.sample_every)


class CrystalShare(MeasureSpec):
    """Share of the atoms that are crystalline, from stored configurations."""

    summary: ClassVar[str] = "share of the atoms that belong to the crystal"
    symbol: ClassVar[str] = "x_c"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("coexistence-dynamics",)

    name: Literal["crystal-share"] = "crystal-share"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a stored configuration."""
        values = _joined(outputs, "crystal_share")
        return Samples(values, np.ones(len(values)), _typed(point)[1].frame_every)


class NormalPressure(MeasureSpec):
    """Pressure along the box, in slabs along it (Irving and Kirkwood): flat where no force is left."""

    summary: ClassVar[str] = "pressure along the box, slab by slab: flat in mechanical equilibrium"
    symbol: ClassVar[str] = "P_N(z)"
    unit: ClassVar[str] = "epsilon/sigma^3"
    methods: ClassVar[tuple[str, ...]] = ("coexistence-dynamics",)

    name: Literal["normal-pressure"] = "normal-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds the middles of the slabs, in box lengths."""
        method = _typed(point)[1]
        values = _joined(outputs, "profile")
        return Samples(values, np.ones(len(values)), method.frame_every, (np.arange(method.bins) + 0.5) / method.bins)

    def expected(self, point: Point, outputs: Sequence[Output]) -> np.ndarray | None:
        """The pressure that the box is held at."""
        system, method = _typed(point)
        return np.full(method.bins, system.virial_pressure)


def tail_pressure(phases: Mapping[str, float]) -> float:
    """What the full potential adds to the pressure at which the phases coexist: -(w_c - w_l) / (v_c - v_l)."""
    volume = 1 / phases["density_crystal"] - 1 / phases["density_liquid"]
    return -(phases["tail_crystal"] - phases["tail_liquid"]) / volume


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def _typed(point: Point) -> tuple[LennardJonesCoexistence, CoexistenceDynamics]:
    assert isinstance(point.system, LennardJonesCoexistence)
    assert isinstance(point.method, CoexistenceDynamics)
    return point.system, point.method
