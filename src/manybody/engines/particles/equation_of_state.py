"""What is measured of a fluid's equation of state in numbers without dimension. Neither torch nor Numba is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.particles.fluids import PairFluid, SimpleFluid
from manybody.engines.particles.known_answers import power_of
from manybody.engines.particles.observables import Pressure
from manybody.engines.particles.spec import MolecularDynamics


class CompressibilityFactor(MeasureSpec):
    """p / (rho kT), at constant volume.

    Where u = c r^-n it depends on rho (c/kT)^(3/n) alone: lengths times l and energies times l^-n give the same system.
    """

    summary: ClassVar[str] = "pressure over that of an ideal gas"
    symbol: ClassVar[str] = "Z"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["compressibility-factor"] = "compressibility-factor"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        assert isinstance(point.system, PairFluid)
        assert isinstance(point.method, MolecularDynamics)
        pressure = Pressure().samples(point, outputs)
        kT = point.system.temperature
        if point.method.thermostat == "none":
            kT = float(np.mean([output.document["temperature"] for output in outputs]))
        return Samples(pressure.values / (point.system.density * kT), pressure.weights, pressure.interval)


class VirialRatio(MeasureSpec):
    """The virial over the potential energy of the pairs within the cutoff, sum r f / sum u: n where u = c r^-n, at all times.

    Virial's theorem of inverse powers holds for each pair, so that no chance enters.
    """

    summary: ClassVar[str] = "virial over potential energy: the exponent of an inverse power"
    symbol: ClassVar[str] = "W/U"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("simple-fluid",)

    name: Literal["virial-ratio"] = "virial-ratio"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, method = point.system, point.method
        assert isinstance(system, SimpleFluid)
        assert isinstance(method, MolecularDynamics)
        virial, shifted, pairs = (
            np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])
            for name in ("virial", "potential_energy", "pairs")
        )
        values = virial / (shifted + system.potential.energy(system.cutoff) * pairs)
        return Samples(values, np.ones_like(values), method.sample_every)

    def exact(self, point: Point) -> ClosedForm | None:
        """The exponent, where the potential is an inverse power."""
        assert isinstance(point.system, SimpleFluid)
        exponent = power_of(point.system.potential.energy)
        if exponent is None:
            return None
        pairs = 2 / 3 * np.pi * point.system.atoms * point.system.density * point.system.cutoff**3
        return ClosedForm(
            exponent,
            exponent * 1e3 * 2.3e-16 * float(np.sqrt(pairs)),
            f"a thousand times the round-off of a sum of {pairs:.0f} pairs in double precision",
            "-r u' = n u for u = c r^-n, pair by pair",
        )
