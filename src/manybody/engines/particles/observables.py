"""What is measured of a liquid: energy, pressure, radial distribution. Neither torch nor Numba is loaded here.

Forces come from the potential shifted to zero at the cutoff, while tables give the plain truncated one with tail
corrections. The two differ by u(r_c) a pair within the cutoff. So each sample carries the weight
exp(-u(r_c) (pairs - mean pairs) / kT) from the one ensemble to the other, which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.particles.known_answers import energy_tail, pair_energy, pressure_tail
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics


class PotentialEnergy(MeasureSpec):
    """Potential energy a particle: (U_shifted + u(r_c) pairs) / N, and the tail 8/3 pi rho (1/3 r_c^-9 - r_c^-3)."""

    summary: ClassVar[str] = "potential energy a particle, of the plain truncated potential with its tail correction"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["potential-energy"] = "potential-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _particles(point)
        energy, pairs = _joined(outputs, "potential_energy"), _joined(outputs, "pairs")
        tail = energy_tail(system.density, system.cutoff) if system.tail_correction else 0.0
        values = (energy + pair_energy(system.cutoff) * pairs) / system.atoms + tail
        return Samples(values, _weights(system, method, pairs), method.sample_every)


class Pressure(MeasureSpec):
    """Pressure: rho kT + virial / (3 V), and the tail 16/3 pi rho^2 (2/3 r_c^-9 - r_c^-3).

    Without a thermostat kT is that of the run's mean kinetic energy.
    """

    summary: ClassVar[str] = "pressure from the virial, with its tail correction"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "epsilon/sigma^3"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["pressure"] = "pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _particles(point)
        kT = system.temperature
        if method.thermostat == "none":
            kT = float(np.mean([output.document["temperature"] for output in outputs]))
        tail = pressure_tail(system.density, system.cutoff) if system.tail_correction else 0.0
        values = system.density * kT + _joined(outputs, "virial") / (3 * system.box**3) + tail
        return Samples(values, _weights(system, method, _joined(outputs, "pairs")), method.sample_every)


class RadialDistribution(MeasureSpec):
    """g(r): pairs at distance r over what an ideal gas of the same density has, from stored configurations."""

    summary: ClassVar[str] = "radial distribution function g(r)"
    symbol: ClassVar[str] = "g(r)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["radial-distribution"] = "radial-distribution"
    bins: int = Field(100, ge=4, le=10_000, description="intervals of r up to half the box, at most 5 sigma")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds the centres of the bins."""
        system, method = _particles(point)
        edges = np.linspace(0.0, min(5.0, system.box / 2), self.bins + 1)
        frames = np.concatenate([np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs])
        values = radial_distribution(frames, system.box, edges)
        pairs = np.concatenate([np.asarray(output.arrays["pairs"])[_at_frames(output)] for output in outputs])
        return Samples(values, _weights(system, method, pairs), method.frame_every, 0.5 * (edges[1:] + edges[:-1]))


def radial_distribution(frames: np.ndarray, box: float, edges: np.ndarray) -> np.ndarray:
    """g(r) of configurations [frames, atoms, 3] in a periodic cube, between evenly spaced `edges` [bins + 1]: [frames, bins].

    `edges` begin at 0 and end at half the box or before.
    """
    from manybody.numerics.histogram import pair_distances  # compiled: only where it is measured

    atoms = frames.shape[1]
    counts = pair_distances(np.ascontiguousarray(frames, dtype=np.float64), box, float(edges[-1]), len(edges) - 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return np.asarray(counts / (atoms * (atoms - 1) / box**3 * shells))


def _particles(point: Point) -> tuple[LennardJonesLiquid, MolecularDynamics]:
    assert isinstance(point.system, LennardJonesLiquid)
    assert isinstance(point.method, MolecularDynamics)
    return point.system, point.method


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def _at_frames(output: Output) -> np.ndarray:
    """The samples taken when the configurations were stored."""
    return np.searchsorted(output.arrays["time"], np.asarray(output.arrays["frame_time"]) * (1 - 1e-9))


def _weights(system: LennardJonesLiquid, method: MolecularDynamics, pairs: np.ndarray) -> np.ndarray:
    """exp(-u(r_c) (pairs - mean) / kT); 1 without a thermostat, where the ensemble is not the canonical one."""
    if method.thermostat == "none" or not len(pairs):
        return np.ones_like(pairs)
    weights: np.ndarray = np.exp(-pair_energy(system.cutoff) * (pairs - pairs.mean()) / system.temperature)
    return weights
