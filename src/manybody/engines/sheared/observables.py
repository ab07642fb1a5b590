"""What is measured of a mixture, at rest and in shear flow. Neither torch nor Numba is loaded here.

The stress is minus the pressure tensor, P V = sum over atoms of v v + sum over pairs of r f, with velocities relative to the
flow. At rest the viscosity is that of M. S. Green and R. Kubo, averaged over the five independent components of the
traceless stress: xy, xz, yz, (xx - yy)/2 and (2 zz - xx - yy)/sqrt(12).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.sheared.spec import LennardJonesMixture, ShearedDynamics


class ShearStress(MeasureSpec):
    """sigma_xy = -P_xy: positive where the flow is resisted."""

    summary: ClassVar[str] = "shear stress of the flow, from velocities and pair forces"
    symbol: ClassVar[str] = "sigma_xy"
    unit: ClassVar[str] = "epsilon/sigma^3"
    methods: ClassVar[tuple[str, ...]] = ("sheared-dynamics",)

    name: Literal["shear-stress"] = "shear-stress"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, -joined(outputs, "pressure_tensor")[:, 3])


class Viscosity(MeasureSpec):
    """sigma_xy / rate in shear flow; at rest V/kT times the time integral of the stress correlation up to `window`."""

    summary: ClassVar[str] = "shear viscosity: stress over rate in shear flow, Green and Kubo's integral at rest"
    symbol: ClassVar[str] = "eta"
    unit: ClassVar[str] = "sqrt(m epsilon)/sigma^2"
    methods: ClassVar[tuple[str, ...]] = ("sheared-dynamics",)

    name: Literal["viscosity"] = "viscosity"
    window: float = Field(10.0, gt=0, description="time after which stresses at rest are taken for uncorrelated")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample, or at rest one a time origin, whose mean is the integral."""
        system, method = _typed(point)
        tensor = joined(outputs, "pressure_tensor")
        if method.shear_rate > 0:
            return _samples(point, -tensor[:, 3] / method.shear_rate)
        lags = max(1, round(self.window / method.sample_every))
        factor = system.box**3 / system.temperature * method.sample_every
        return _samples(point, factor * correlation_integral(shear_components(tensor), lags))


class MixtureEnergy(MeasureSpec):
    """Potential energy a particle, of the potential as it is cut off; no correction is added."""

    summary: ClassVar[str] = "potential energy a particle of a mixture, as its potential is cut off"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = ("sheared-dynamics",)

    name: Literal["mixture-energy"] = "mixture-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, _ = _typed(point)
        return _samples(point, joined(outputs, "potential_energy") / system.atoms)


class MixturePressure(MeasureSpec):
    """A third of the trace of the pressure tensor; no correction is added for what is cut off."""

    summary: ClassVar[str] = "pressure of a mixture, as its potential is cut off"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "epsilon/sigma^3"
    methods: ClassVar[tuple[str, ...]] = ("sheared-dynamics",)

    name: Literal["mixture-pressure"] = "mixture-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, joined(outputs, "pressure_tensor")[:, :3].mean(axis=1))


def shear_components(tensor: np.ndarray) -> np.ndarray:
    """The five independent components of the traceless stress, of equal variance in a liquid, [samples, 5].

    tensor: [samples, 6], xx yy zz xy xz yz.
    """
    xx, yy, zz = tensor[:, 0], tensor[:, 1], tensor[:, 2]
    normal = np.stack([0.5 * (xx - yy), (2 * zz - xx - yy) / math.sqrt(12)], axis=1)
    return np.concatenate([tensor[:, 3:], normal], axis=1)


def correlation_integral(series: np.ndarray, lags: int) -> np.ndarray:
    """For each origin t, s(t) (s(t)/2 + s(t+1) + .. + s(t+lags)/2) averaged over components: [samples - lags].

    Its mean over t is the trapezoidal integral of the autocorrelation, in units of the sampling interval. series:
    [samples, components], of mean zero by symmetry. At most half of the series is taken for the lags.
    """
    lags = min(lags, len(series) // 2)
    summed = np.concatenate([np.zeros((1, series.shape[1])), np.cumsum(series, axis=0)])
    origins = len(series) - lags
    later = summed[lags + 1 :] - summed[:origins]  # s(t) + .. + s(t + lags)
    ahead = later - 0.5 * series[:origins] - 0.5 * series[lags:]
    return np.asarray((series[:origins] * ahead).mean(axis=1))


def joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    """A recorded array of successive tasks, end to end."""
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def _samples(point: Point, values: np.ndarray) -> Samples:
    _, method = _typed(point)
    return Samples(values, np.ones(len(values)), method.sample_every)


def _typed(point: Point) -> tuple[LennardJonesMixture, ShearedDynamics]:
    assert isinstance(point.system, LennardJonesMixture)
    assert isinstance(point.method, ShearedDynamics)
    return point.system, point.method
