"""A stretch of molecular dynamics, as the methods of several engines ask for it."""

from __future__ import annotations

from typing import Any, Literal

from manybody.core.protocols import MethodSpec
from manybody.core.spec import Spec, refuse_unless_multiple

Thermostat = Literal["bussi", "langevin", "none"]


class Leg(Spec):
    """One stretch of dynamics: what a node needs to know to compute it. Times in the method's unit."""

    thermostat: Thermostat
    thermostat_time: float
    time_step: float
    time: float
    sample_every: float
    frame_every: float

    @property
    def steps(self) -> int:
        """Time steps of the leg."""
        return max(1, round(self.time / self.time_step))

    @classmethod
    def of(cls, method: MethodSpec, **changes: Any) -> Leg:
        """A leg with a method's settings, changed where said; `time` always is."""
        fields = {field: getattr(method, field) for field in cls.model_fields if field != "time"}
        return cls.model_validate(fields | changes)


def refuse_unless_times_nest(method: MethodSpec) -> None:
    """Refuse a method whose samples are no whole steps, frames no whole samples, or segments no whole frames."""
    for field, inner in (("sample_every", "time_step"), ("frame_every", "sample_every"), ("segment", "frame_every")):
        refuse_unless_multiple(method, field, inner)
