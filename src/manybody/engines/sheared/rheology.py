"""Laws of flow and how well they fit: torch-free.

    Newton           sigma = eta rate
    Bingham          sigma = sigma_y + eta rate
    Herschel-Bulkley sigma = sigma_y + A rate^n,    sigma_y >= 0, A > 0, 0 < n <= 1

W. H. Herschel and R. Bulkley, Kolloid-Zeitschrift 39, 291 (1926). Fits are by weighted least squares: for a given n the law
is linear, so that n is found by a search in one dimension. Laws are compared by the Bayesian information criterion with
known errors, chi^2 + p ln k for p parameters and k rates; exp(-difference / 2) is the evidence for the other law, and below
exp(-5) it is called very strongly against it (R. E. Kass and A. E. Raftery, J. Am. Stat. Assoc. 90, 773 (1995)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Law = Literal["newton", "bingham", "herschel-bulkley"]
PARAMETERS: dict[Law, int] = {"newton": 1, "bingham": 2, "herschel-bulkley": 3}
_EXPONENTS = np.linspace(0.05, 1.0, 20)  # where the search starts


@dataclass(frozen=True)
class Fit:
    """A law fitted to a flow curve: sigma_y + factor rate^exponent, and the standard error of sigma_y."""

    law: Law
    yield_stress: float
    factor: float
    exponent: float
    yield_error: float
    chi_squared: float
    points: int

    @property
    def criterion(self) -> float:
        """The Bayesian information criterion, with known errors."""
        return self.chi_squared + PARAMETERS[self.law] * math.log(self.points)

    def stress(self, rates: np.ndarray) -> np.ndarray:
        """The law at `rates`."""
        return np.asarray(self.yield_stress + self.factor * rates**self.exponent)


def fit(law: Law, rates: np.ndarray, stresses: np.ndarray, errors: np.ndarray) -> Fit:
    """The law with the least chi^2; rates, stresses and their standard errors [points], more points than parameters."""
    if law == "newton":
        return _linear(law, rates, stresses, errors, 1.0, with_yield=False)
    if law == "bingham":
        return _linear(law, rates, stresses, errors, 1.0)
    chosen = _EXPONENTS
    for _ in range(7):  # each time the grid is finer by 8/3 around the best
        fits = [_linear(law, rates, stresses, errors, float(n)) for n in chosen]
        best = int(np.argmin([found.chi_squared for found in fits]))
        width = 1.5 * float(chosen[1] - chosen[0])
        chosen = np.linspace(max(0.01, float(chosen[best]) - width), min(1.0, float(chosen[best]) + width), 9)
    found = fits[best]
    return Fit(
        law, found.yield_stress, found.factor, found.exponent, _yield_error(found, rates, errors), found.chi_squared, len(rates)
    )


def _linear(
    law: Law, rates: np.ndarray, stresses: np.ndarray, errors: np.ndarray, exponent: float, with_yield: bool = True
) -> Fit:  # fmt: skip
    """sigma_y + factor rate^exponent with the exponent given; a negative sigma_y is taken for none."""
    columns = [np.ones_like(rates)] * with_yield + [rates**exponent]
    design = np.stack(columns, axis=1) / errors[:, None]
    solution, *_ = np.linalg.lstsq(design, stresses / errors, rcond=None)
    if with_yield and solution[0] < 0:
        without = _linear(law, rates, stresses, errors, exponent, with_yield=False)
        return without
    yielding, factor = (float(solution[0]), float(solution[1])) if with_yield else (0.0, float(solution[0]))
    rest = (stresses - yielding - factor * rates**exponent) / errors
    covariance = np.linalg.inv(design.T @ design)
    error = math.sqrt(covariance[0, 0]) if with_yield else 0.0
    return Fit(law, yielding, factor, exponent, error, float(rest @ rest), len(rates))


def _yield_error(found: Fit, rates: np.ndarray, errors: np.ndarray) -> float:
    """The standard error of sigma_y in all three parameters, from the curvature of chi^2."""
    powers = rates**found.exponent
    design = np.stack([np.ones_like(rates), powers, found.factor * powers * np.log(rates)], axis=1) / errors[:, None]
    return math.sqrt(np.linalg.pinv(design.T @ design)[0, 0])


def evidence_ratio(simple: Fit, rich: Fit) -> float:
    """The evidence for the simple law over that for the rich one, exp(-difference of the criteria / 2)."""
    return math.exp(min(0.5 * (rich.criterion - simple.criterion), 700.0))
