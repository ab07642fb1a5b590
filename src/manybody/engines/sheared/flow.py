"""Checks of flow: what law a flow curve follows, and whether two routes give the same stress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.stats import chi2, norm

from manybody.core.certificate import CheckKind, Finding, judge
from manybody.core.protocols import CheckSpec, Evidence
from manybody.core.study import Point
from manybody.core.task import Task
from manybody.engines.sheared.observables import joined
from manybody.engines.sheared.rheology import Fit, evidence_ratio, fit
from manybody.engines.sheared.spec import LennardJonesMixture, ShearedDynamics
from manybody.numerics.statistics import block_error, family_threshold

CLEARLY = 1 / 5  # a quantity is there where its standard error is at most this of it: five standard errors


class Dissipation(CheckSpec):
    """The stress from velocities and forces, and that from the heat carried off: rate sigma V = dU/dt - dQ/dt.

    U hardly changes in steady flow; counting what it does leaves only the noise of sampling between the two.
    """

    summary: ClassVar[str] = "the stress does the work that is carried off as heat"
    kind: ClassVar[CheckKind] = "invariant"
    methods: ClassVar[tuple[str, ...]] = ("sheared-dynamics",)

    name: Literal["dissipation"] = "dissipation"
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all points together")
    accuracy: float = Field(1e-3, ge=0, description="of the stress: what the time step may add to the standard error")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """One finding, with the worst point as its value."""
        points = [point for point in evidence.plan.points if _rate(point) > 0]
        routes = {point.label: _two_routes(evidence, point, self.accuracy) for point in points}
        limit = family_threshold(self.sigma, len(points))
        scores = {label: (heat - stress) / error for label, (stress, heat, error) in routes.items()}
        worst = max(scores, key=lambda label: abs(scores[label]), default="")
        value = scores.get(worst)
        rows = {
            label: {"stress": row[0], "from heat": row[1], "error of the difference": row[2]} for label, row in routes.items()
        }
        return [
            Finding(
                name="stress by two routes",
                kind="invariant",
                claim=f"the stress from forces is that from the heat carried off, in standard errors (worst: {worst or 'none'})",
                value=value,
                tolerance=limit,
                tolerance_from=f"{self.sigma:g} standard errors over {len(points)} points, and {self.accuracy:g} of the stress",
                source="d(work)/dt = rate sigma_xy V, and the work is stored as potential energy or leaves as heat",
                verdict=judge(value, limit),
                evidence={"points": rows},
            )
        ]


def _two_routes(evidence: Evidence, point: Point, accuracy: float) -> tuple[float, float, float]:
    """The stress from forces, that from heat, and the standard error of their difference with `accuracy` of the stress."""
    assert isinstance(point.system, LennardJonesMixture)
    power = _rate(point) * point.system.box**3
    stresses, heats, differences = [], [], []
    for run in evidence.plan.realisations:
        if run.point.index != point.index:
            continue
        for task in run.measured:
            output = evidence.output(task)
            series, time = -joined([output], "pressure_tensor")[:, 3], joined([output], "time")
            stored = joined([output], "potential_energy") - joined([output], "heat")  # the kinetic energy is held fixed
            carried = np.diff(stored) / np.diff(time) / power
            stresses.append(0.5 * (series[1:] + series[:-1]))
            heats.append(carried)
            differences.append(carried - stresses[-1])
    mean = float(np.concatenate(differences).mean())
    blocked = block_error([difference - mean for difference in differences])
    stress, heat = float(np.concatenate(stresses).mean()), float(np.concatenate(heats).mean())
    return stress, heat, math.hypot(float(blocked.error), accuracy * stress)


@dataclass(frozen=True)
class _Curve:
    """The points of one temperature: rates and stresses with errors, and the viscosity at rest where that was measured."""

    temperature: float
    rates: np.ndarray
    stresses: np.ndarray
    errors: np.ndarray
    at_rest: tuple[float, float] | None


class FlowLaw(CheckSpec):
    """The law of flow at each temperature: of Herschel and Bulkley in the glass, Newton's at low rates in the liquid.

    Below `glass` the law of Herschel and Bulkley must hold and beat Newton's and Bingham's, with a yield stress. Above it
    the viscosity must tend to that at rest, and fall at high rates.
    """

    summary: ClassVar[str] = "glass: Herschel-Bulkley beats Newton and Bingham; liquid: Newtonian plateau and shear thinning"
    kind: ClassVar[CheckKind] = "reference"
    methods: ClassVar[tuple[str, ...]] = ("sheared-dynamics",)

    name: Literal["flow-law"] = "flow-law"
    glass: float = Field(0.435, gt=0, description="temperature of the glass transition; that of mode coupling for Kob-Andersen")
    accuracy: float = Field(0.03, gt=0, description="how well a law is asked to hold, of the stress: it is no exact one")
    plateau: int = Field(2, ge=1, description="how many of the lowest rates are taken for the plateau")
    sigma: float = Field(3.0, gt=0, description="standard errors allowed over all comparisons of a temperature together")

    def judge(self, evidence: Evidence, tasks: tuple[Task, ...]) -> list[Finding]:
        """Three findings for each temperature below `glass`, two for each above."""
        findings: list[Finding] = []
        for curve in _curves(evidence):
            findings += self._solid(curve) if curve.temperature < self.glass else self._liquid(curve)
        return findings

    def _solid(self, curve: _Curve) -> list[Finding]:
        where, rates = f"at temperature {curve.temperature:g}", curve.rates
        if len(rates) < 4:
            few = f"{len(rates)} rates {where}; three parameters take at least 4"
            return [_finding(f"Herschel-Bulkley law {where}", "statistics", few, None, 1.0, "none", {})]
        widened = np.hypot(curve.errors, self.accuracy * curve.stresses)
        newton, bingham, rich = (fit(law, rates, curve.stresses, widened) for law in ("newton", "bingham", "herschel-bulkley"))
        freedom = len(rates) - 3
        told = f"{rich.yield_stress:.3f} + {rich.factor:.3f} rate^{rich.exponent:.2f}"
        facts = {law.law: _shown(law) for law in (newton, bingham, rich)} | {
            "rates": rates.tolist(), "stresses": curve.stresses.tolist(), "errors": curve.errors.tolist(),
        }  # fmt: skip
        against = max(evidence_ratio(newton, rich), evidence_ratio(bingham, rich))
        names = "evidence for Newton's or Bingham's law over that of Herschel and Bulkley"
        errors = f"errors of the stresses and {self.accuracy:.0%} of them"
        share = rich.yield_error / rich.yield_stress if rich.yield_stress > 0 else math.inf
        return [
            _finding(
                f"Herschel-Bulkley law {where}", "statistics",
                f"{told}: chi-squared {rich.chi_squared:.1f} of {freedom}", _normal_equivalent(rich.chi_squared, freedom),
                self.sigma, f"{self.sigma:g} standard deviations of a normal variable as unlikely, with {errors}", facts,
            ),
            _finding(
                f"against Newton and Bingham {where}", "statistics", f"{names}, exp(-difference of BIC / 2)", against,
                math.exp(-5), "very strong evidence: Kass and Raftery, J. Am. Stat. Assoc. 90, 773 (1995)", facts,
            ),
            _finding(
                f"yield stress {where}", "statistics", f"{rich.yield_stress:.3f}({rich.yield_error:.3f}): its error over it",
                share if math.isfinite(share) else None, CLEARLY, "five standard errors", facts,
            ),
        ]  # fmt: skip

    def _liquid(self, curve: _Curve) -> list[Finding]:
        where = f"at temperature {curve.temperature:g}"
        viscosities, errors = curve.stresses / curve.rates, curve.errors / curve.rates
        facts = {"rates": curve.rates.tolist(), "viscosities": viscosities.tolist(), "errors": errors.tolist()}
        if curve.at_rest is None or len(viscosities) <= self.plateau:
            few = "the viscosity at rest (shear_rate 0), and more rates than those of the plateau, were not measured"
            return [_finding(f"Newtonian plateau {where}", "reference", few, None, self.sigma, "none", facts)]
        rest, rest_error = curve.at_rest
        low, low_errors = viscosities[: self.plateau], errors[: self.plateau]
        scores = (low - rest) / np.hypot(low_errors, rest_error)
        worst = float(scores[np.argmax(np.abs(scores))])
        limit = family_threshold(self.sigma, self.plateau)
        fall = rest - float(viscosities[-1])
        error = math.hypot(rest_error, float(errors[-1]))
        shown = ", ".join(f"{value:.2f}({error:.2f})" for value, error in zip(low, low_errors, strict=True))
        return [
            _finding(
                f"Newtonian plateau {where}", "reference",
                f"viscosity {shown} at low rates, {rest:.2f}({rest_error:.2f}) at rest by Green and Kubo", worst, limit,
                f"{self.sigma:g} combined standard errors over {self.plateau} rates together", facts,
            ),
            _finding(
                f"shear thinning {where}", "statistics",
                f"viscosity {viscosities[-1]:.2f} at rate {curve.rates[-1]:g}, {rest:.2f} at rest: error of the fall over it",
                error / fall if fall > 0 else None, CLEARLY, "five standard errors", facts,
            ),
        ]  # fmt: skip


def _finding(
    name: str, kind: CheckKind, claim: str, value: float | None, tolerance: float, tolerance_from: str, facts: dict[str, object]
) -> Finding:
    verdict = judge(value, tolerance)
    return Finding(
        name=name, kind=kind, claim=claim, value=value, tolerance=tolerance, tolerance_from=tolerance_from, verdict=verdict,
        evidence=facts,
    )  # fmt: skip


def _shown(found: Fit) -> dict[str, float]:
    names = ("yield_stress", "factor", "exponent", "yield_error", "chi_squared")
    return {name: float(getattr(found, name)) for name in names} | {"criterion": found.criterion}


def _normal_equivalent(squares: float, freedom: int) -> float:
    """The standard normal deviate as unlikely as a chi^2 so large or larger; 0 where it is smaller than its median."""
    return max(0.0, float(np.clip(norm.isf(chi2.sf(squares, freedom)), -37.0, 37.0)))


def _curves(evidence: Evidence) -> list[_Curve]:
    """The flow curves of a study, by temperature, rates ascending."""
    groups: dict[float, list[Point]] = {}
    for point in evidence.plan.points:
        assert isinstance(point.system, LennardJonesMixture)
        groups.setdefault(point.system.temperature, []).append(point)
    curves = []
    for temperature, points in sorted(groups.items()):
        moving = sorted((point for point in points if _rate(point) > 0), key=_rate)
        resting = [evidence.estimate(point, "viscosity") for point in points if _rate(point) == 0]
        stresses = [evidence.estimate(point, "shear-stress") for point in moving]
        curves.append(
            _Curve(
                temperature,
                np.array([_rate(point) for point in moving]),
                np.array([found.value for found in stresses]),
                np.array([found.error for found in stresses]),
                (resting[0].value, resting[0].error) if resting else None,
            )
        )
    return curves


def _rate(point: Point) -> float:
    assert isinstance(point.method, ShearedDynamics)
    return point.method.shear_rate
