"""What is measured of dissipative particles. Neither torch nor Numba is loaded here.

The state that is asked for is canonical with no total momentum. There, exactly: velocities are Gaussian, each component of
variance kT (1 - 1/N), and kT is the mean squared force over the mean Laplacian of the energy, the configurational
temperature (B. D. Butler, G. Ayton, O. G. Jepps and D. J. Evans, J. Chem. Phys. 109, 6519 (1998)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.dissipative.known_answers import unlike_share
from manybody.engines.dissipative.spec import DissipativeDynamics, DissipativeParticles


class SoftPressure(MeasureSpec):
    """Pressure: rho kT (chains and springs included by their virial) and the virial over 3 V."""

    summary: ClassVar[str] = "pressure of dissipative particles by the virial"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "kT/r_c^3"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["soft-pressure"] = "soft-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, _ = typed(point)
        virial = np.mean([joined(outputs, f"virial_{axis}") for axis in "xyz"], axis=0)
        return _samples(point, system.density * system.temperature + virial / system.volume)


class SoftEnergy(MeasureSpec):
    """Potential energy a particle."""

    summary: ClassVar[str] = "potential energy a particle of dissipative particles"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "kT"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["soft-energy"] = "soft-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, joined(outputs, "energy") / typed(point)[0].particles)


class KineticTemperature(MeasureSpec):
    """sum of (v^2 + dt^2 F^2 / 4) over 3 (N - 1) kT: 1 in equilibrium.

    These are the velocities half a kick before and after the end of a step, where friction and noise act. The splitting has
    kT (1 - omega^2 dt^2 / 4) at the end of a step on a spring of frequency omega, and kT there.
    """

    summary: ClassVar[str] = "kinetic temperature at mid-step, over that asked for"
    symbol: ClassVar[str] = "T_kin/T"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["kinetic-temperature"] = "kinetic-temperature"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = typed(point)
        kicked = joined(outputs, "kinetic_energy") + 0.125 * method.time_step**2 * joined(outputs, "squared_force")
        return _samples(point, kicked / (1.5 * (system.particles - 1) * system.temperature))


class ConfigurationalTemperature(MeasureSpec):
    """<sum F^2> / (kT <sum of Laplacians>): 1 in equilibrium. Positions alone tell it."""

    summary: ClassVar[str] = "configurational temperature over that asked for: squared forces over the Laplacian"
    symbol: ClassVar[str] = "T_conf/T"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["configurational-temperature"] = "configurational-temperature"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample, whose mean is the quotient of the means."""
        squared, laplacian = joined(outputs, "squared_force"), joined(outputs, "laplacian")
        quotient = squared.mean() / laplacian.mean()
        return _samples(point, (quotient + (squared - quotient * laplacian) / laplacian.mean()) / typed(point)[0].temperature)


class VelocityKurtosis(MeasureSpec):
    """<v_x^4> / (3 <v_x^2>^2), over components and particles: 1 for the distribution of Maxwell and Boltzmann."""

    summary: ClassVar[str] = "fourth moment of velocities over that of Maxwell and Boltzmann"
    symbol: ClassVar[str] = "<v^4>/3<v^2>^2"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["velocity-kurtosis"] = "velocity-kurtosis"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample, whose mean is the quotient of the means."""
        velocities = 3 * typed(point)[0].particles
        fourth, square = joined(outputs, "fourth_moment") / velocities, 2 * joined(outputs, "kinetic_energy") / velocities
        gaussian = 3 * square.mean() ** 2
        quotient = fourth.mean() / gaussian
        return _samples(point, fourth / gaussian - 2 * quotient * (square / square.mean() - 1))


class SoftDiffusion(MeasureSpec):
    """(<dr^2>(2 lag) - <dr^2>(lag)) / (6 lag), the lag being the time between frames: <d_1^2 + 2 d_1 . d_2> / (6 lag)."""

    summary: ClassVar[str] = "self-diffusion from the slope of the mean square displacement, lag to twice the lag"
    symbol: ClassVar[str] = "D"
    unit: ClassVar[str] = "r_c^2/tau"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["soft-diffusion"] = "soft-diffusion"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a frame."""
        squares, products = joined(outputs, "squared_displacement"), joined(outputs, "displacement_product")
        return _frames(point, (squares + 2 * products) / (6 * typed(point)[1].frame_every))


class SoftDistribution(MeasureSpec):
    """g(r): pairs at distance r over what an ideal gas of the same density has, from stored configurations, all species alike."""

    summary: ClassVar[str] = "radial distribution g(r) of dissipative particles in a cubic box"
    symbol: ClassVar[str] = "g(r)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["soft-distribution"] = "soft-distribution"
    bins: int = Field(30, ge=4, le=10_000, description="intervals of r up to half the box, at most 3")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds the centres of the bins."""
        from manybody.numerics.histogram import pair_distances  # compiled: only where it is measured

        box = min(typed(point)[0].box)
        edges = np.linspace(0.0, min(3.0, box / 2), self.bins + 1)
        frames = joined(outputs, "frames")
        count = frames.shape[1]
        found = pair_distances(frames, box, float(edges[-1]), self.bins)
        values = found / (count * (count - 1) / box**3 * 4 / 3 * np.pi * np.diff(edges**3))
        return _frames(point, values, 0.5 * (edges[1:] + edges[:-1]))


class Segregation(MeasureSpec):
    """1 - (share of unlike ones among the pairs in range) / (share among all pairs): 0 where species are but names.

    1 where no two species touch; below 0 where unlike particles seek each other.
    """

    summary: ClassVar[str] = "how much species avoid each other: 0 mixed at random, 1 apart"
    symbol: ClassVar[str] = "S"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["segregation"] = "segregation"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        share = joined(outputs, "unlike_pairs") / np.maximum(joined(outputs, "pairs"), 1)
        return _samples(point, 1 - share / unlike_share(typed(point)[0].counts))


class InterfacialTension(MeasureSpec):
    """L_z (p_zz - (p_xx + p_yy) / 2) / 2: of each of the two interfaces across z that an elongated box has; 0 without any."""

    summary: ClassVar[str] = "interfacial tension from the pressure tensor, of two interfaces across z"
    symbol: ClassVar[str] = "sigma"
    unit: ClassVar[str] = "kT/r_c^2"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["interfacial-tension"] = "interfacial-tension"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, _ = typed(point)
        across, along, beside = (joined(outputs, f"virial_{axis}") for axis in "zxy")
        return _samples(point, 0.5 * system.box[2] * (across - 0.5 * (along + beside)) / system.volume)


class EndToEnd(MeasureSpec):
    """Mean square distance of the ends of a chain."""

    summary: ClassVar[str] = "mean square distance of the ends of a chain"
    symbol: ClassVar[str] = "<R^2>"
    unit: ClassVar[str] = "r_c^2"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["end-to-end"] = "end-to-end"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a frame."""
        return _frames(point, joined(outputs, "end_to_end"))


def joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    """A recorded array of successive tasks, end to end."""
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def typed(point: Point) -> tuple[DissipativeParticles, DissipativeDynamics]:
    """The system and the method of a point."""
    assert isinstance(point.system, DissipativeParticles)
    assert isinstance(point.method, DissipativeDynamics)
    return point.system, point.method


def _samples(point: Point, values: np.ndarray) -> Samples:
    return Samples(values, np.ones(len(values)), typed(point)[1].sample_every)


def _frames(point: Point, values: np.ndarray, axis: np.ndarray | None = None) -> Samples:
    return Samples(values, np.ones(len(values)), typed(point)[1].frame_every, axis)
