"""Unbiased: where an unbiased run gets to, a free-energy surface is its histogram. Torch-free."""

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
from manybody.core.units import Time
from manybody.engines.molecules.sampling import BiasedDynamics, Unbiased
from manybody.engines.molecules.surfaces import FreeEnergySurface
from manybody.numerics.agreement import compare_curves
from manybody.numerics.statistics import family_threshold


class UnbiasedHistogram(CheckSpec):
    """Runs without any bias, compared with the surface at every point, in the cells that they visit in every block.

    They see what barriers do not keep from them, and nothing is reweighted: an oracle for that part of the surface.
    """

    summary: ClassVar[str] = "where runs without a bias get to, their histogram is the free-energy surface"
    kind: ClassVar[CheckKind] = "reference"
    methods: ClassVar[tuple[str, ...]] = ("biased-dynamics",)

    name: Literal["unbiased"] = "unbiased"
    duration: Time = Field(1000.0, gt=0, description="simulated time of each unbiased run")
    runs: int = Field(2, ge=1, description="unbiased runs")
    depth: float = Field(4.0, gt=0, description="how far above the lowest cell cells are compared, kT")
    sigma: float = Field(3.0, gt=0, description="standard deviations allowed over all points together")

    def tasks(self, plan: Plan) -> tuple[Task, ...]:
        """The unbiased runs, with the settings of the first point; raises `InputError` where no surface is measured."""
        self._surface(plan)
        method = self._method(plan.points[0])
        chains = [method.plan(plan.points[0].system, plan.study.seed, repeat)[0] for repeat in range(self.runs)]
        return tuple(task for chain in chains for task in chain)

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding a point."""
        surface = self._surface(evidence.plan)
        points = evidence.plan.points
        point = Point(points[0].index, "unbiased", points[0].system, self._method(points[0]))
        outputs = [evidence.output(task) for task in tasks if task.stage == "weigh"]
        free = [surface.samples(point, [output]).values for output in outputs]
        limit = family_threshold(self.sigma, len(points))
        return [self._finding(evidence, place, free, limit) for place in points]

    def _finding(self, evidence: Evidence, point: Point, free: list[np.ndarray], limit: float) -> Finding:
        biased = [
            evidence.samples(run, "free-energy-surface").values
            for run in evidence.plan.realisations
            if run.point.index == point.index
        ]
        found = compare_curves(free, biased)
        claim = (
            f"the surface at {point.label} is the histogram of {len(free)} runs without a bias, in the {found.bins} cells they "
            f"reach: mean squared difference {found.mean_square:.2f} of its variance, as a standard normal deviate"
        )
        return Finding(
            name=f"unbiased histogram: {point.label}",
            kind="reference",
            claim=claim,
            value=found.excess if math.isfinite(found.excess) else None,
            tolerance=limit,
            tolerance_from=f"{self.sigma:g} standard deviations over all points together; the cells are worth "
            f"{found.effective:.1f} independent ones",
            verdict=judge(found.excess, limit) if math.isfinite(found.excess) else Verdict.FAILS,
            evidence={"cells": found.bins, "effective_cells": found.effective},
        )

    def _surface(self, plan: Plan) -> FreeEnergySurface:
        """The study's surface, with this check's depth."""
        for measure in plan.study.measures:
            if isinstance(measure, FreeEnergySurface):
                return measure.model_copy(update={"depth": self.depth})
        expected, remedy = "`free-energy-surface` among the measures", "Add `- free-energy-surface` to them."
        raise InputError(Problem("check `unbiased`", expected, "none", remedy))

    def _method(self, point: Point) -> BiasedDynamics:
        assert isinstance(point.method, BiasedDynamics)
        return BiasedDynamics.model_validate(
            point.method.document() | {"bias": Unbiased().document(), "duration": self.duration, "segment": self.duration}
        )
