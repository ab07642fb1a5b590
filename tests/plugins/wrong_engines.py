"""Methods that are wrong on purpose, installed as anyone's plugin would be: certificates must refuse them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal
from unittest.mock import patch

import numpy as np

from manybody.core.protocols import Context
from manybody.core.task import Output, Task
from manybody.engines.particles import stages
from manybody.engines.particles.engine import LiquidEngine, Trace
from manybody.engines.particles.spec import MolecularDynamics
from manybody.numerics.pairs import LENNARD_JONES

SCALE = 1.01


class ScaledForce(LiquidEngine):
    """Forces are 1 % too large; the energy is right."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.kernel = LENNARD_JONES.bind({"epsilon": SCALE, "sigma": 1.0})
        self.shift = self.kernel.energy(self.system.cutoff)

    def trace(self, rows: np.ndarray) -> Trace:
        trace = super().trace(rows)
        return replace(trace, potential_energy=trace.potential_energy / SCALE)


class ThermostatLeftOn(LiquidEngine):
    """A heat bath acts even where none is asked for, and its heat is not counted."""

    def __init__(self, system: Any, time_step: float, thermostat: Any, *args: Any) -> None:
        super().__init__(system, time_step, "bussi", *args)

    def trace(self, rows: np.ndarray) -> Trace:
        trace = super().trace(rows)
        return replace(trace, heat=np.zeros_like(trace.heat))


def scaled_equilibrate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    with patch.object(stages, "LiquidEngine", ScaledForce):
        return stages.equilibrate(task, inputs, context)


def scaled_produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    with patch.object(stages, "LiquidEngine", ScaledForce):
        return stages.produce(task, inputs, context)


def heated_produce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    with patch.object(stages, "LiquidEngine", ThermostatLeftOn):
        return stages.produce(task, inputs, context)


class ScaledForceDynamics(MolecularDynamics):
    """Molecular dynamics with forces 1 % too large."""

    summary: ClassVar[str] = "wrong on purpose: forces 1 % too large"
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "wrong_engines:scaled_equilibrate",
        "produce": "wrong_engines:scaled_produce",
        "conserve": "wrong_engines:scaled_produce",
    }
    name: Literal["scaled-force-dynamics"] = "scaled-force-dynamics"  # type: ignore[assignment]


class ThermostatLeftOnDynamics(MolecularDynamics):
    """Molecular dynamics whose NVE runs have a thermostat on."""

    summary: ClassVar[str] = "wrong on purpose: the thermostat is never switched off"
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.particles.stages:equilibrate",
        "produce": "wrong_engines:heated_produce",
        "conserve": "wrong_engines:heated_produce",
    }
    name: Literal["thermostat-left-on-dynamics"] = "thermostat-left-on-dynamics"  # type: ignore[assignment]
