"""A small study whose every number is known: Gaussian series with a given correlation, written down, not simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from manybody.core.certificate import Certificate, CheckKind, Finding, judge
from manybody.core.protocols import CheckSpec, Estimate, Evidence, MeasureSpec, Samples
from manybody.core.study import Plan, Point, Realisation, Study
from manybody.core.task import Output, Task
from manybody.study.expand import expand
from manybody.study.measure import estimate

SAMPLES = 256  # of each measured task
CORRELATION = 0.6  # between samples that follow one another


def energy(density: float) -> float:
    """The mean of the energy series at a density."""
    return -7.0 * density


class HandEnergy(MeasureSpec):
    """The mean of the written series."""

    symbol: ClassVar[str] = "U*/N"
    unit: ClassVar[str] = "ε"
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)
    summary: ClassVar[str] = "potential energy a particle"
    name: Literal["hand-energy"] = "hand-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        values = np.concatenate([output.arrays["potential_energy"] for output in outputs])
        return Samples(values, np.ones(len(values)), interval=0.08)


class HandCurve(MeasureSpec):
    """A curve, the same at every point but for its height."""

    symbol: ClassVar[str] = "g(r)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("molecular-dynamics",)
    summary: ClassVar[str] = "radial distribution function"
    name: Literal["hand-curve"] = "hand-curve"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        axis = np.linspace(0.05, 1.6, 24)
        height = np.concatenate([output.arrays["potential_energy"] for output in outputs])[:16, None]
        return Samples(1 + np.exp(-((axis - 1.1) ** 2) / 0.01) * (2 + 0.1 * height), np.ones(16), 2.0, axis)


class HandCheck(CheckSpec):
    """Compares the energy with the mean that the series were written around."""

    kind: ClassVar[CheckKind] = "reference"
    summary: ClassVar[str] = "the energy is what was written"
    name: Literal["hand-reference"] = "hand-reference"
    offset: float = 0.0

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        return [self._finding(point, evidence.estimate(point, "hand-energy")) for point in evidence.plan.points]

    def _finding(self, point: Point, ours: Estimate) -> Finding:
        reference = energy(point.system.document()["density"]) + self.offset
        value = (ours.value - reference) / math.hypot(ours.error, 0.01)
        return Finding(
            name=f"hand-energy at {point.label}",
            kind="reference",
            claim=f"the energy at {point.label} is {reference:g}",
            value=value,
            tolerance=4.0,
            tolerance_from="four combined standard errors",
            source="A. Author, https://example.org/table",
            verdict=judge(value, 4.0),
            evidence={
                "point": point.label,
                "measure": "hand-energy",
                "ours": ours.value,
                "error": ours.error,
                "reference": reference,
                "reference_error": 0.01,
            },
        )


class HandEvidence:
    """Evidence written down: each task's output comes from its own random key."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def output(self, task: Task) -> Output:
        generator = task.key.generator()
        atoms, density = int(task.system["atoms"]), float(task.system["density"])
        noise = generator.normal(size=SAMPLES)
        series = np.empty(SAMPLES)
        series[0] = noise[0]
        for index in range(1, SAMPLES):
            series[index] = CORRELATION * series[index - 1] + math.sqrt(1 - CORRELATION**2) * noise[index]
        box = (atoms / density) ** (1 / 3)
        return Output(
            arrays={
                "time": 0.08 * np.arange(SAMPLES),
                "potential_energy": energy(density) + 0.2 * series,
                "effective_energy": 1e-4 * generator.normal(size=SAMPLES) + 1e-6 * np.arange(SAMPLES),
                "momentum": 1e-15 * generator.normal(size=SAMPLES),
                "positions": generator.uniform(0, box, size=(atoms, 3)),
                "velocities": generator.normal(size=(atoms, 3)),
                "box": np.full(3, box),
            },
            document={"steps": SAMPLES},
        )

    def computed_by(self, task: Task) -> str:
        return f"local-{task.repeat}"

    def result_digest(self, task: Task) -> str:
        return task.digest[::-1]

    def samples(self, realisation: Realisation, measure: str) -> Samples:
        spec = next(spec for spec in self.plan.study.measures if spec.name == measure)
        return spec.samples(realisation.point, [self.output(task) for task in realisation.measured])

    def estimate(self, point: Point, measure: str) -> Estimate:
        runs = [run for run in self.plan.realisations if run.point.index == point.index]
        return estimate([self.samples(run, measure) for run in runs])


HandMade = Callable[..., tuple[Plan, Evidence, Certificate]]


@pytest.fixture
def hand_made() -> HandMade:
    """Plan, evidence and certificate of the hand-made study; keywords change fields of the study or the check."""

    def make(offset: float = 0.0, **changes: Any) -> tuple[Plan, Evidence, Certificate]:
        sweep = [{"system.temperature": 0.85, "system.density": rho} for rho in (0.776, 0.82, 0.86)]
        fields: dict[str, Any] = {
            "name": "hand-made",
            "title": "A study written by hand",
            "question": "What is the energy of the written series?",
            "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.8, "atoms": 32, "cutoff": 1.5},
            "method": {"name": "molecular-dynamics", "duration": 40.0, "segment": 20.0},
            "sweep": [*sweep, {"system.temperature": 0.9, "system.density": 0.776}],
            "repeats": 2,
            "measures": [HandEnergy(), HandCurve()],
            "checks": [HandCheck(offset=offset)],
            "citations": ["A. Author, Journal of Hand-made Numbers 1, 1 (2000), https://example.org/article"],
        }
        plan = expand(Study.model_validate(fields | changes))
        evidence = HandEvidence(plan)
        findings = [finding for check in plan.study.checks for finding in check.judge(evidence, ())]
        return plan, evidence, Certificate.of(plan.study.name, plan.study.digest, findings)

    return make
