"""Checks of coupling a solute: windows that overlap and agree in both directions, and routes that share no step. Torch-free."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Plan, Point
from manybody.core.task import Task
from manybody.engines.solvation.estimators import jackknifed, overlap
from manybody.engines.solvation.known_answers import added_particle
from manybody.engines.solvation.observables import Windows, typed
from manybody.numerics.statistics import family_threshold

COUPLED, INTEGRATED, INSERTED = "solvation-free-energy", "integrated-free-energy", "inserted-free-energy"


class CoupledWindows(CheckSpec):
    """Windows overlap; forward and backward averages agree; and so do integration and MBAR, which use different numbers.

    Differences are those of the same samples, so that what both routes share drops out of their error.
    """

    summary: ClassVar[str] = "windows of a coupling overlap, show no hysteresis, and integrate to what MBAR gives"
    kind: ClassVar[CheckKind] = "statistics"
    methods: ClassVar[tuple[str, ...]] = ("alchemical-dynamics",)

    name: Literal["coupled-windows"] = "coupled-windows"
    least_overlap: float = Field(0.03, gt=0, lt=0.5, description="overlap of neighbouring windows that is asked for")
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all points together")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` where there is nothing to compare."""
        return _demand(plan, self.name, COUPLED, INTEGRATED)

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """Three findings, each with the worst point as its value."""
        points = evidence.plan.points
        runs = {point.label: _windows(evidence, point) for point in points}
        both_ways = "free energies by exponential averages from each window forward, and from each backward, are the same"
        by_slopes = "the integral of dU/dl is the free energy that MBAR finds from energies alone"
        hysteresis = {point.label: _hysteresis(runs[point.label], typed(point)[1].blocks) for point in points}
        integration = {point.label: _values(evidence, point, INTEGRATED) - _values(evidence, point, COUPLED) for point in points}
        return [
            self._overlap(runs),
            self._agreement("hysteresis", both_ways, hysteresis),
            self._agreement("integration and MBAR", by_slopes, integration),
        ]

    def _agreement(self, name: str, claim: str, differences: dict[str, np.ndarray]) -> Finding:
        scores = {label: _score(values) for label, values in differences.items()}
        # NaN counts as worst: it must not hide behind a finite value elsewhere.
        worst = max(scores, key=lambda label: (math.isnan(scores[label]), abs(scores[label])))
        limit = family_threshold(self.sigma, 2 * len(scores))
        return Finding(
            name=name,
            kind="statistics",
            claim=f"{claim}, in standard errors of the difference (worst: {worst})",
            value=scores[worst] if math.isfinite(scores[worst]) else None,
            tolerance=limit,
            tolerance_from=f"{self.sigma:g} standard errors over {2 * len(scores)} comparisons together",
            verdict=judge(scores[worst], limit),
            evidence={"scores": {label: score if math.isfinite(score) else None for label, score in scores.items()}},
        )

    def _overlap(self, runs: dict[str, list[Windows]]) -> Finding:
        least = {label: min(map(_least_overlap, found)) for label, found in runs.items()}
        worst = min(least, key=lambda label: least[label])
        value = self.least_overlap / least[worst] if least[worst] > 0 else math.inf
        return Finding(
            name="overlap of windows",
            kind="statistics",
            claim=f"neighbouring windows overlap by {least[worst]:.3f} or more (worst: {worst}): what is asked for, over that",
            value=value if math.isfinite(value) else None,
            tolerance=1.0,
            tolerance_from=f"an overlap of {self.least_overlap:g}, below which errors of free energies cannot be believed",
            source="P. V. Klimovich, M. R. Shirts and D. L. Mobley, J. Comput.-Aided Mol. Des. 29, 397 (2015)",
            verdict=judge(value, 1.0),
            evidence={"least overlap": least},
        )


class SolvationRoutes(CheckSpec):
    """Coupling agrees with random insertion, and, for one more particle of the fluid, with a published equation of state.

    Insertion uses none of the soft core, its slopes or its windows, and gives the free energy of the same potential exactly.
    Where its own error is more than `coarse` it would agree too easily: undecided.
    """

    summary: ClassVar[str] = "coupling gives what random insertion and the equation of state of the fluid give"
    kind: ClassVar[CheckKind] = "reference"
    methods: ClassVar[tuple[str, ...]] = ("alchemical-dynamics",)

    name: Literal["solvation-routes"] = "solvation-routes"
    accuracy: float = Field(0.02, gt=0, description="how well the equation of state is known, epsilon")
    coarse: float = Field(0.1, gt=0, description="largest standard error at which a comparison decides, epsilon")
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all points together")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """None; raises `InputError` where there is nothing to compare."""
        return _demand(plan, self.name, COUPLED, INSERTED)

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a point by insertion, and one by the equation of state where the solute is like the solvent."""
        points = evidence.plan.points
        limit = family_threshold(self.sigma, 2 * len(points))
        alike = [point for point in points if typed(point)[0].is_pure]
        found = [self._insertion(evidence, point, limit) for point in points]
        return found + [self._fluid(evidence, point, limit) for point in alike]

    def _insertion(self, evidence: Evidence, point: Point, limit: float) -> Finding:
        apart, error = _mean(_values(evidence, point, COUPLED) - _values(evidence, point, INSERTED))
        verdict, tolerance_from = judge(apart / error, limit), f"{self.sigma:g} standard errors over all comparisons together"
        if verdict is Verdict.HOLDS and error > self.coarse:
            verdict = Verdict.UNDECIDED
            tolerance_from += f"; too coarse to decide: the error is over {self.coarse:g}"
        return Finding(
            name=f"coupling and insertion at {point.label}",
            kind="reference",
            claim=f"coupling and random insertion differ by {apart:.4f} +- {error:.4f} epsilon: in standard errors",
            value=apart / error if math.isfinite(apart / error) else None,
            tolerance=limit,
            tolerance_from=tolerance_from,
            source="B. Widom, J. Chem. Phys. 39, 2808 (1963)",
            verdict=verdict,
            evidence={"difference": apart, "error": error},
        )

    def _fluid(self, evidence: Evidence, point: Point, limit: float) -> Finding:
        system, _ = typed(point)
        ours, error = _mean(_values(evidence, point, COUPLED))
        known = added_particle(system.temperature, system.density, system.atoms)
        verdict = judge(ours - known, limit * error + self.accuracy)
        if verdict is Verdict.HOLDS and error > self.coarse:
            verdict = Verdict.UNDECIDED
        return Finding(
            name=f"equation of state at {point.label}",
            kind="reference",
            claim=f"one particle more costs {known:.4f} by the equation of state, ours {ours:.4f} +- {error:.4f} epsilon",
            value=ours - known if math.isfinite(ours) else None,
            tolerance=limit * error + self.accuracy,
            tolerance_from=f"{limit:.2g} standard errors, and {self.accuracy:g} for the equation of state",
            source="J. Kolafa and I. Nezbeda, Fluid Phase Equilib. 100, 1 (1994)",
            verdict=verdict,
            evidence={"ours": ours, "error": error, "reference": known},
        )


def _demand(plan: Plan, check: str, *measures: str) -> tuple[Task, ...]:
    """No tasks; raises `InputError` where one of the measures that a check compares is not taken."""
    known = {measure.name for measure in plan.study.measures}
    missing = [name for name in measures if name not in known]
    if missing:
        expected, came = f"the measures {' and '.join(measures)}", ", ".join(sorted(known))
        raise InputError(Problem(f"check `{check}`", expected, came, f"Add `- {missing[0]}` to the measures."))
    return ()


def _windows(evidence: Evidence, point: Point) -> list[Windows]:
    runs = [run for run in evidence.plan.realisations if run.point.index == point.index]
    return [Windows.of(point, [evidence.output(task) for task in run.measured]) for run in runs]


def _values(evidence: Evidence, point: Point, measure: str) -> np.ndarray:
    """The jackknifed values of a measure at a point, [runs * blocks]."""
    runs = [run for run in evidence.plan.realisations if run.point.index == point.index]
    return np.concatenate([evidence.samples(run, measure).values for run in runs])


def _hysteresis(runs: list[Windows], blocks: int) -> np.ndarray:
    """Jackknifed values of the free energy forward less that backward, [runs * blocks], over kT."""

    def of(some: Windows) -> np.ndarray:
        return jackknifed(lambda block: some.without(block).forward() - some.without(block).backward(), blocks)

    return np.concatenate([of(some) for some in runs])


def _least_overlap(some: Windows) -> float:
    return min(overlap(some.works(k, k + 1), some.works(k + 1, k)) for k in range(len(some.slopes) - 1))


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of values that are independent."""
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


def _score(values: np.ndarray) -> float:
    """The mean of independent values in standard errors."""
    mean, error = _mean(values)
    return mean / error
