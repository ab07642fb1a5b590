"""What is measured of particles: energy, pressure, density, structure. Neither torch nor Numba is loaded here.

Forces come from the potential shifted to zero at the cutoff, while tables give the plain truncated one with tail
corrections. The two differ by u(r_c) a pair within the cutoff. So each sample carries the weight
exp(-u(r_c) (pairs - mean pairs) / kT) from the one ensemble to the other, which is exact.

At constant pressure that would also move the volume, whose pressure knows of no jump at the cutoff. So there the ensemble is
the one that is run: of the shifted potential, and of what is left out at g(r) = 1 as a free energy of the volume. The mean of
the measured pressure is then exactly the pressure that is kept. The piston has V^(N-1) where particles that may move as a whole
have V^N, so under it samples carry a factor V.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import MeasureSpec, MethodSpec, Samples, SystemSpec
from manybody.core.spec import refuse
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.particles.fluids import PairFluid
from manybody.engines.particles.spec import MolecularDynamics

FIRM = 0.9  # of half the box: how far pairs are counted where it fluctuates, by some per cent at most


class PotentialEnergy(MeasureSpec):
    """Potential energy a particle: (U_shifted + u(r_c) pairs) / N, and the tail 8/3 pi rho (1/3 r_c^-9 - r_c^-3)."""

    summary: ClassVar[str] = "potential energy a particle, of the plain truncated potential with its tail correction"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["potential-energy"] = "potential-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, outputs, _potential_energies(point, outputs))


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
        return _samples(point, outputs, _pressures(point, outputs))


class Density(MeasureSpec):
    """Particles per volume."""

    summary: ClassVar[str] = "particles per volume of a box at constant pressure"
    symbol: ClassVar[str] = "rho"
    unit: ClassVar[str] = "1/sigma^3"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["density"] = "density"

    def suits(self, system: SystemSpec, method: MethodSpec) -> None:
        """At constant volume the density is what the system says."""
        _refuse_constant_volume(self, method)

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _samples(point, outputs, np.broadcast_to(densities(point, outputs), _joined(outputs, "pairs").shape))


class Enthalpy(MeasureSpec):
    """Enthalpy a particle: potential energy and 3/2 kT, and P V / N, P being the pressure that is kept or measured."""

    summary: ClassVar[str] = "enthalpy a particle: energy and pressure times volume"
    symbol: ClassVar[str] = "H/N"
    unit: ClassVar[str] = "epsilon"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["enthalpy"] = "enthalpy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        pressure = _particles(point)[1].pressure
        work = (_pressures(point, outputs) if pressure is None else pressure) / densities(point, outputs)
        return _samples(point, outputs, _potential_energies(point, outputs) + 1.5 * _temperature(point, outputs) + work)


class IsothermalCompressibility(MeasureSpec):
    """-(dV/dP) / V at constant temperature, from how the volume fluctuates: (<V^2> - <V>^2) / (<V> kT).

    Samples are the squared deviations from a run's own mean, so that a run much longer than the memory of its volume is
    needed: of n independent volumes it gives the fraction (n - 1) / n.
    """

    summary: ClassVar[str] = "isothermal compressibility, from the fluctuation of the volume at constant pressure"
    symbol: ClassVar[str] = "kappa_T"
    unit: ClassVar[str] = "sigma^3/epsilon"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["isothermal-compressibility"] = "isothermal-compressibility"

    def suits(self, system: SystemSpec, method: MethodSpec) -> None:
        """It takes constant pressure and temperature."""
        _refuse_constant_volume(self, method)
        assert isinstance(method, MolecularDynamics)
        if method.thermostat == "none":
            refuse("measures", f"a thermostat for `{self.name}`", "none", "Give the method one, or leave the measure out.")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = _particles(point)
        volumes = _joined(outputs, "volume")
        weights = _weights(system, method, _joined(outputs, "pairs"), volumes)
        mean = float(np.average(volumes, weights=weights))
        return Samples((volumes - mean) ** 2 / (mean * system.temperature), weights, method.sample_every)


class RadialDistribution(MeasureSpec):
    """g(r): pairs at distance r over what an ideal gas of the same density has, from stored configurations."""

    summary: ClassVar[str] = "radial distribution function g(r)"
    symbol: ClassVar[str] = "g(r)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["radial-distribution"] = "radial-distribution"
    bins: int = Field(100, ge=4, le=10_000, description="intervals of r up to half the box, at most 5 sigma")

    def suits(self, system: SystemSpec, method: MethodSpec) -> None:
        """It takes a cubic box."""
        if isinstance(method, MolecularDynamics) and method.pressure is not None and method.coupling == "anisotropic":
            remedy = "Take `coupling: isotropic`, or leave the measure out."
            refuse("measures", f"a cubic box for `{self.name}`", "edges that move for themselves", remedy)

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds the centres of the bins."""
        system, method = _particles(point)
        edges = np.linspace(0.0, min(5.0, system.box / 2 * (1.0 if method.pressure is None else FIRM)), self.bins + 1)
        frames = np.concatenate([np.asarray(output.arrays["frames"], dtype=np.float64) for output in outputs])
        if method.pressure is None:
            values, volumes = radial_distribution(frames, system.box, edges), None
        else:
            boxes = _cubes(outputs, edges)
            curves = [radial_distribution(frames[n : n + 1], box, edges) for n, box in enumerate(boxes)]
            values, volumes = np.concatenate(curves), np.array(boxes) ** 3
        pairs = np.concatenate([np.asarray(output.arrays["pairs"])[_at_frames(output)] for output in outputs])
        return Samples(values, _weights(system, method, pairs, volumes), method.frame_every, 0.5 * (edges[1:] + edges[:-1]))


def radial_distribution(frames: np.ndarray, box: float, edges: np.ndarray) -> np.ndarray:
    """g(r) of configurations [frames, atoms, 3] in a periodic cube, between evenly spaced `edges` [bins + 1]: [frames, bins].

    `edges` begin at 0 and end at half the box or before.
    """
    from manybody.numerics.histogram import pair_distances  # compiled: only where it is measured

    atoms = frames.shape[1]
    counts = pair_distances(np.ascontiguousarray(frames, dtype=np.float64), box, float(edges[-1]), len(edges) - 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return np.asarray(counts / (atoms * (atoms - 1) / box**3 * shells))


def _refuse_constant_volume(measure: MeasureSpec, method: MethodSpec) -> None:
    assert isinstance(method, MolecularDynamics)
    if method.pressure is None:
        remedy = "Give the method a `pressure`, or leave the measure out."
        refuse("measures", f"constant pressure for `{measure.name}`", "constant volume", remedy)


def _particles(point: Point) -> tuple[PairFluid, MolecularDynamics]:
    assert isinstance(point.system, PairFluid)
    assert isinstance(point.method, MolecularDynamics)
    return point.system, point.method


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])


def _at_frames(output: Output) -> np.ndarray:
    """The samples taken when the configurations were stored."""
    return np.searchsorted(output.arrays["time"], np.asarray(output.arrays["frame_time"]) * (1 - 1e-9))


def _samples(point: Point, outputs: Sequence[Output], values: np.ndarray) -> Samples:
    """One value a sample, with its weight."""
    system, method = _particles(point)
    volumes = None if method.pressure is None else _joined(outputs, "volume")
    return Samples(values, _weights(system, method, _joined(outputs, "pairs"), volumes), method.sample_every)


def densities(point: Point, outputs: Sequence[Output]) -> float | np.ndarray:
    """Particles per volume: that of the system, or of each sample."""
    system, method = _particles(point)
    return system.density if method.pressure is None else system.atoms / _joined(outputs, "volume")


def _temperature(point: Point, outputs: Sequence[Output]) -> float:
    """The temperature asked for; without a thermostat that of the mean kinetic energy."""
    system, method = _particles(point)
    if method.thermostat != "none":
        return system.temperature
    return float(np.mean([output.document["temperature"] for output in outputs]))


def _potential_energies(point: Point, outputs: Sequence[Output]) -> np.ndarray:
    """Of the plain truncated potential, a particle, with the tail at the density of the time."""
    system, _ = _particles(point)
    density = densities(point, outputs)
    energies: np.ndarray = _joined(outputs, "potential_energy") + system.edge_energy * _joined(outputs, "pairs")
    return energies / system.atoms + density * system.energy_tail(1.0)


def _pressures(point: Point, outputs: Sequence[Output]) -> np.ndarray:
    """rho kT + virial / (3 V), and the tail at the density of the time."""
    system, _ = _particles(point)
    density = densities(point, outputs)
    virial = _joined(outputs, "virial")
    return density * _temperature(point, outputs) + virial * density / (3 * system.atoms) + density**2 * system.pressure_tail(1.0)


def _cubes(outputs: Sequence[Output], edges: np.ndarray) -> list[float]:
    """The box of each stored configuration, a cube of at least twice the largest of `edges`."""
    boxes = np.concatenate([np.asarray(output.arrays["frame_edges"]) for output in outputs])
    if boxes.min() < 2 * edges[-1]:
        came = f"a box of {boxes.min():.4g}, less than twice the {edges[-1]:.4g} that pairs are counted to"
        raise InputError(
            Problem("system.density", "a start near equilibrium", came, "Start at the density that the run came to.")
        )
    return [float(edge) for edge in boxes[:, 0]]


def _weights(system: PairFluid, method: MolecularDynamics, pairs: np.ndarray, volumes: np.ndarray | None) -> np.ndarray:
    """From the ensemble that was run to the one that is asked for, as said at the top; 1 without a thermostat."""
    if method.thermostat == "none" or not len(pairs):
        return np.ones_like(pairs)
    if volumes is not None:
        return volumes / volumes.mean() if method.barostat == "martyna-tobias-klein" else np.ones_like(pairs)
    weights: np.ndarray = np.exp(-system.edge_energy * (pairs - pairs.mean()) / system.temperature)
    return weights
