"""What is measured and checked of any fluid's equation of state. Neither torch nor Numba is loaded here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence, MeasureSpec, Samples
from manybody.core.study import Plan, Point
from manybody.core.task import Output, Task
from manybody.engines.particles.fluids import PairFluid, SimpleFluid
from manybody.engines.particles.observables import Pressure, densities
from manybody.engines.particles.spec import MolecularDynamics

ROUND_OFFS = 1000.0  # what sums that cancel in part, and are shifted and shifted back, may lose


class CompressibilityFactor(MeasureSpec):
    """<p V> / (N kT).

    Where u = c r^-n it depends on rho (c/kT)^(3/n) alone, or on p (c/kT)^(3/n) / kT: lengths times l and energies times l^-n
    give the same system.
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
        return Samples(pressure.values / (densities(point, outputs) * kT), pressure.weights, pressure.interval)


class VirialTheorem(CheckSpec):
    """Where u = c r^-n the virial is n times the potential energy: sum r f = n sum u, in every sample, to round-off.

    It holds for each pair, so that no chance enters: force and energy of a formula are one potential's.
    """

    summary: ClassVar[str] = "the virial of an inverse power is its exponent times the energy, in every sample"
    kind: ClassVar[CheckKind] = "reference"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)

    name: Literal["virial-theorem"] = "virial-theorem"
    exponent: float = Field(gt=0, description="n of the inverse power r^-n")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` for a system that is no simple fluid."""
        for point in plan.points:
            if not isinstance(point.system, SimpleFluid):
                remedy = "Leave the check out, or ask for a simple-fluid of u = c r^-n."
                raise InputError(Problem("check `virial-theorem`", "a simple-fluid", point.system.name, remedy))
        return ()

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a point, with the worst sample of its realisations."""
        return [_virial_finding(evidence, point, self.exponent) for point in evidence.plan.points]


def _virial_finding(evidence: Evidence, point: Point, exponent: float) -> Finding:
    system = point.system
    assert isinstance(system, SimpleFluid)
    edge = system.potential.energy(system.cutoff)
    runs = [run for run in evidence.plan.realisations if run.point.index == point.index]
    found = [evidence.output(task).arrays for run in runs for task in run.measured]
    ratios = np.concatenate([each["virial"] / (each["potential_energy"] + edge * np.asarray(each["pairs"])) for each in found])
    worst = float(np.abs(ratios / exponent - 1).max())  # NaN where one is none
    pairs = 2 / 3 * math.pi * system.atoms * system.density * system.cutoff**3
    tolerance = ROUND_OFFS * 2.3e-16 * math.sqrt(pairs)
    return Finding(
        name=f"virial theorem at {point.label}",
        kind="reference",
        claim=f"the virial is {exponent:g} times the potential energy in each of {len(ratios)} samples",
        value=worst if math.isfinite(worst) else None,
        tolerance=tolerance,
        tolerance_from=f"{ROUND_OFFS:g} times the round-off of a sum of {pairs:.0f} pairs in double precision, relative",
        source="-r u' = n u for u = c r^-n",
        verdict=judge(worst, tolerance),
        evidence={"samples": len(ratios), "exponent": exponent},
    )
