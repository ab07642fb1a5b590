"""What is measured of active Ornstein-Uhlenbeck particles besides displacements. No compiler is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.active.coloured import theory
from manybody.engines.active.observables import joined, sampled


class VelocityCorrelation(MeasureSpec):
    """<v(t + lag) . v(t)>, v = p + F and the lag the time between samples."""

    summary: ClassVar[str] = "correlation of velocities over the time between samples"
    symbol: ClassVar[str] = "<v v'>"
    unit: ClassVar[str] = "d^2/t^2"
    methods: ClassVar[tuple[str, ...]] = ("coloured-noise-dynamics",)

    name: Literal["velocity-correlation"] = "velocity-correlation"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return sampled(point, joined(outputs, "velocity_correlation"))

    def exact(self, point: Point) -> ClosedForm | None:
        """2 T / tau exp(-t / tau) of free particles; known in a harmonic trap, too."""
        return theory.velocity_correlation(point)


class EffectiveTemperature(MeasureSpec):
    """-<x . F> / 2 of the trap's force: k <x^2> for a component in a harmonic trap, as a passive particle has it at T_eff."""

    summary: ClassVar[str] = "temperature at which a passive particle would spread as far in the trap; 0 without one"
    symbol: ClassVar[str] = "T_eff"
    unit: ClassVar[str] = "energy"
    methods: ClassVar[tuple[str, ...]] = ("coloured-noise-dynamics",)

    name: Literal["effective-temperature"] = "effective-temperature"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return sampled(point, joined(outputs, "trap_virial"))

    def exact(self, point: Point) -> ClosedForm | None:
        """T / (1 + k tau) in a harmonic trap."""
        return theory.effective_temperature(point)


class EntropyProduction(MeasureSpec):
    """tau/T <p . H v> - <tr H> + tau^2/T <|H v|^2>: how much likelier paths are than their reverse, a particle and time.

    H: the second derivatives of the energy of pairs and trap.
    """

    summary: ClassVar[str] = "rate of entropy production a particle: logarithm of how much likelier paths are than reversed ones"
    symbol: ClassVar[str] = "sigma"
    unit: ClassVar[str] = "1/t"
    methods: ClassVar[tuple[str, ...]] = ("coloured-noise-dynamics",)

    name: Literal["entropy-production"] = "entropy-production"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return sampled(point, joined(outputs, "entropy_production"))

    def exact(self, point: Point) -> ClosedForm | None:
        """0 in a harmonic trap."""
        return theory.entropy_production(point)
