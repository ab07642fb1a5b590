"""Checks of equilibrium: whether the thermostat has made the canonical state, and what equation of state follows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.engines.dissipative.known_answers import SLOPE, SLOPE_ERROR, inverse_compressibility
from manybody.engines.dissipative.observables import typed
from manybody.numerics.statistics import family_threshold

UNITY = ("kinetic-temperature", "configurational-temperature", "velocity-kurtosis")


class Canonical(CheckSpec):
    """What is 1 in the canonical state is 1, at every point: both temperatures, and the fourth moment of velocities.

    Positions and velocities are tested apart. Noise too weak or strong for the friction shows in all three; a scheme that
    samples velocities well but positions badly, only in the configurational temperature.
    """

    summary: ClassVar[str] = "velocities and positions are those of the canonical state at the temperature asked for"
    kind: ClassVar[CheckKind] = "invariant"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["canonical"] = "canonical"
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all points together")
    accuracy: float = Field(0.005, ge=0, description="what the time step may add")
    resolution: float = Field(0.02, gt=0, description="largest tolerance, errors included, that still tells something")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` where the study does not measure what must be 1."""
        require(plan, UNITY, "canonical")
        return ()

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding for each of the three, with the worst point as its value."""
        return [self._finding(evidence, name) for name in UNITY]

    def _finding(self, evidence: Evidence, name: str) -> Finding:
        points = evidence.plan.points
        limit = family_threshold(self.sigma, len(points) * len(UNITY))
        found = {point.label: evidence.estimate(point, name) for point in points}
        excess = {label: float(estimate.value) - 1 for label, estimate in found.items()}
        allowed = {label: self.accuracy + limit * float(estimate.error) for label, estimate in found.items()}
        # NaN counts as worst: it must not hide behind a finite value elsewhere.
        worst = max(excess, key=lambda label: (math.isnan(excess[label]), abs(excess[label]) / allowed[label]))
        verdict = judge(excess[worst], allowed[worst])
        coarse = max(allowed.values()) > self.resolution
        return Finding(
            name=f"canonical {name}",
            kind="invariant",
            claim=f"{name} is 1, less 1 (worst: {worst})",
            value=excess[worst] if math.isfinite(excess[worst]) else None,
            tolerance=allowed[worst],
            tolerance_from=f"{self.accuracy:g} for the time step, and {self.sigma:g} standard errors over all points",
            source="Maxwell and Boltzmann; for positions B. D. Butler et al., J. Chem. Phys. 109, 6519 (1998)",
            verdict=Verdict.UNDECIDED if coarse and verdict is Verdict.HOLDS else verdict,
            evidence={label: {"value": float(each.value), "error": float(each.error)} for label, each in found.items()},
        )


class EquationOfState(CheckSpec):
    """The slope alpha of p = rho kT + alpha a rho^2 between successive densities, and the compressibility that follows.

    Points are compared that differ in density alone, or in size and duration besides. Groot and Warren fitted alpha = 0.101(1)
    above density 2.
    """

    summary: ClassVar[str] = "the pressure of soft particles grows with density as Groot and Warren found"
    kind: ClassVar[CheckKind] = "reference"
    methods: ClassVar[tuple[str, ...]] = ("dissipative-dynamics",)

    name: Literal["equation-of-state"] = "equation-of-state"
    sigma: float = Field(3.0, gt=0, description="combined standard errors allowed over all pairs of densities together")
    least_density: float = Field(2.0, ge=0, description="below it the law is not claimed")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` where there are no two densities to compare."""
        require(plan, ("soft-pressure",), "equation-of-state")
        if not self._pairs(plan):
            expected = f"two points that differ in density alone, above {self.least_density:g}"
            raise InputError(Problem("check `equation-of-state`", expected, "none", "Sweep `system.density`."))
        return ()

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a pair of successive densities."""
        pairs = self._pairs(evidence.plan)
        limit = family_threshold(self.sigma, len(pairs))
        return [self._finding(evidence, low, high, limit) for low, high in pairs]

    def _pairs(self, plan: Plan) -> list[tuple[Point, Point]]:
        groups: dict[str, list[Point]] = {}
        for point in plan.points:
            system, method = typed(point)
            if system.density >= self.least_density and system.repulsion > 0 and len(system.fractions) == system.beads == 1:
                alike = system.model_copy(update={"density": 1.0, "particles": 1}).digest
                groups.setdefault(f"{alike} {method.time_step}", []).append(point)
        ordered = [sorted(group, key=lambda point: typed(point)[0].density) for group in groups.values()]
        return [pair for group in ordered for pair in pairwise(group)]

    def _finding(self, evidence: Evidence, low: Point, high: Point, limit: float) -> Finding:
        system, other = typed(low)[0], typed(high)[0]
        below, above = evidence.estimate(low, "soft-pressure"), evidence.estimate(high, "soft-pressure")
        kT, squares = system.temperature, system.repulsion * (other.density**2 - system.density**2)
        slope = (float(above.value - below.value) - kT * (other.density - system.density)) / squares
        error = math.hypot(float(above.error), float(below.error)) / squares
        score = (slope - SLOPE) / math.hypot(error, SLOPE_ERROR)
        middle = 0.5 * (system.density + other.density)
        stiffness = inverse_compressibility(middle, system.repulsion, kT, slope)
        published = inverse_compressibility(middle, system.repulsion, kT)
        verdict = judge(score, limit)
        return Finding(
            name=f"equation of state from {low.label} to {high.label}",
            kind="reference",
            claim=(
                f"alpha of p = rho kT + alpha a rho^2 is {SLOPE:g}({SLOPE_ERROR * 1e3:.0f}), in combined standard errors; it is "
                f"{slope:.5f} +- {error:.1g}, so that the inverse compressibility at density {middle:g} is {stiffness:.2f} kT, "
                f"published {published:.1f}"
            ),
            value=score if math.isfinite(score) else None,
            tolerance=limit,
            tolerance_from=f"{self.sigma:g} combined standard errors over all pairs of densities",
            source="R. D. Groot and P. B. Warren, J. Chem. Phys. 107, 4423 (1997)",
            verdict=Verdict.UNDECIDED if verdict is Verdict.HOLDS and error > SLOPE_ERROR else verdict,
            evidence={"alpha": slope, "alpha_error": error, "inverse_compressibility": stiffness},
        )


def require(plan: Plan, names: tuple[str, ...], check: str) -> None:
    """Raise `InputError` where a study does not measure what a check judges."""
    missing = [name for name in names if name not in [measure.name for measure in plan.study.measures]]
    if missing:
        expected = f"the measures {', '.join(names)}"
        raise InputError(Problem(f"check `{check}`", expected, f"none of {', '.join(missing)}", "Add them to `measures`."))
