"""The check of coexistence: crystal and melt are both there, in balance, and come to it from either side."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.certificate import CheckKind, Finding, Verdict, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Point, Realisation
from manybody.core.task import Task
from manybody.engines.particles.melting.spec import CoexistenceDynamics, LennardJonesCoexistence
from manybody.numerics.statistics import block_error, family_threshold


class Coexisting(CheckSpec):
    """Started below the melting point the crystal grew, above it melted; both end at one temperature and at one pressure.

    Needs the measures `melting-temperature` and `normal-pressure`, and points that start on both sides.
    """

    summary: ClassVar[str] = "crystal and melt coexist: frozen from below, melted from above, one temperature, one pressure"
    kind: ClassVar[CheckKind] = "statistics"
    methods: ClassVar[tuple[str, ...]] = ("coexistence-dynamics",)

    name: Literal["coexisting"] = "coexisting"
    layers: float = Field(1.0, gt=0, description="layers of the crystal, at least, that must have grown or melted")
    share: float = Field(0.15, gt=0, lt=0.5, description="of the atoms, at least, that must be in either phase throughout")
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all comparisons of a kind together")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """What grew and melted, what is left of either phase, one temperature, one pressure."""
        return [self._sides(evidence), self._both(evidence), self._temperature(evidence), self._pressure(evidence)]

    def _sides(self, evidence: Evidence) -> Finding:
        """Every run moved in the direction that its start has, by as many layers as asked for."""
        points = evidence.plan.points
        melting = {point.index: float(evidence.estimate(point, "melting-temperature").value) for point in points}
        moved: dict[str, float] = {}
        for run in evidence.plan.realisations:
            system, method = _typed(run.point)
            start = float(evidence.output(run.measured[-1]).document["phases"]["crystal_at_start"])
            grown = float(_shares(evidence, run).mean()) - start
            towards = 1 if method.start_temperature < melting[run.point.index] else -1
            moved[f"{run.point.label}, run {run.repeat + 1}"] = towards * grown * 2 * system.length  # two layers a cell
        worst = min(moved, key=lambda label: moved[label])
        short = max(0.0, self.layers - moved[worst])
        sides = {_typed(point)[1].start_temperature < melting[point.index] for point in points}
        return Finding(
            name="freezing and melting",
            kind="statistics",
            claim=f"below the melting point the crystal grows, above it melts: layers short of {self.layers:g} (worst: {worst})",
            value=short,
            tolerance=0.0,
            tolerance_from=f"at least {self.layers:g} of the {_typed(points[0])[0].length} layers that half the box holds",
            verdict=judge(short, 0.0) if len(sides) == 2 else Verdict.UNDECIDED,
            evidence={"layers": moved},
        )

    def _both(self, evidence: Evidence) -> Finding:
        """The smaller phase is never used up."""
        shares = [_shares(evidence, run) for run in evidence.plan.realisations]
        least = min(float(min(series.min(), 1 - series.max())) for series in shares)
        short = max(0.0, self.share - least)
        return Finding(
            name="both phases",
            kind="invariant",
            claim=f"crystal and melt are both there throughout: share short of {self.share:g}",
            value=short,
            tolerance=0.0,
            tolerance_from="a phase as thick as both interfaces of the other, at least",
            verdict=judge(short, 0.0),
            evidence={"least": least},
        )

    def _temperature(self, evidence: Evidence) -> Finding:
        """The largest difference between points, in combined standard errors."""
        points = evidence.plan.points
        estimates = {point.label: evidence.estimate(point, "melting-temperature") for point in points}
        pairs = [(a, b) for i, a in enumerate(estimates) for b in list(estimates)[:i]]
        limit = family_threshold(self.sigma, max(1, len(pairs)))
        scores = {
            f"{a}; {b}": (estimates[a].value - estimates[b].value) / math.hypot(estimates[a].error, estimates[b].error)
            for a, b in pairs
        }
        worst = max(scores, key=lambda pair: abs(scores[pair]), default="")
        return Finding(
            name="one melting temperature",
            kind="statistics",
            claim=f"all starts end at the same temperature, in combined standard errors (worst: {worst})",
            value=scores.get(worst),
            tolerance=limit,
            tolerance_from=f"{self.sigma:g} standard errors over {len(pairs)} pairs together",
            verdict=judge(scores.get(worst), limit),
            evidence={"temperatures": {label: [found.value, found.error] for label, found in estimates.items()}},
        )

    def _pressure(self, evidence: Evidence) -> Finding:
        """The slab whose pressure is furthest from the one that the box is held at, in standard errors."""
        scores: dict[str, float] = {}
        for point in evidence.plan.points:
            system, _ = _typed(point)
            runs = [evidence.samples(run, "normal-pressure").values for run in evidence.plan.realisations if run.point == point]
            rests = [values - np.mean(np.concatenate(runs), axis=0) for values in runs]
            found = (np.mean(np.concatenate(runs), axis=0) - system.virial_pressure) / block_error(rests).error
            slab = int(np.argmax(np.abs(found)))
            scores[f"{point.label}, slab {slab + 1}"] = float(found[slab])
        tests = sum(_typed(point)[1].bins for point in evidence.plan.points)
        limit = family_threshold(self.sigma, tests)
        worst = max(scores, key=lambda label: abs(scores[label]))
        return Finding(
            name="one pressure",
            kind="invariant",
            claim=f"in every slab the pressure along the box is the one it is held at, in standard errors (worst: {worst})",
            value=scores[worst],
            tolerance=limit,
            tolerance_from=f"{self.sigma:g} standard errors over {tests} slabs together",
            verdict=judge(scores[worst], limit),
            evidence={"worst slabs": scores},
        )


def _shares(evidence: Evidence, run: Realisation) -> np.ndarray:
    """Share of the crystal in the stored configurations of a run; each run keeps an enthalpy, hence a share, of its own."""
    return np.concatenate([np.asarray(evidence.output(task).arrays["crystal_share"]) for task in run.measured])


def _typed(point: Point) -> tuple[LennardJonesCoexistence, CoexistenceDynamics]:
    assert isinstance(point.system, LennardJonesCoexistence)
    assert isinstance(point.method, CoexistenceDynamics)
    return point.system, point.method
