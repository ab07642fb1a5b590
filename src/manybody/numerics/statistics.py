"""Statistical errors of correlated series, by blocking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm


@dataclass(frozen=True)
class Blocked:
    """The standard error of a mean from block averages.

    `inefficiency` is how many samples make one independent one (1 for white noise); `blocks` how many blocks the
    error rests on. For a curve both are the worst of its bins.
    """

    error: np.ndarray
    inefficiency: float
    blocks: int


def block_error(residuals: Sequence[np.ndarray], least_blocks: int = 16) -> Blocked:
    """Standard error of the mean of correlated series, pooled over independent runs.

    residuals: one array [samples] or [samples, bins] a run, deviations from the common mean. The block length is the
    shortest power of two with length^3 > 2 N s^2, where s is the statistical inefficiency that this length gives
    (Lee, Conduit, Nemec, Lopez Rios & Drummond, Phys. Rev. E 83, 066706, 2011, for the blocking of Flyvbjerg & Petersen,
    J. Chem. Phys. 91, 461, 1989); where that would leave fewer than `least_blocks` blocks, the longest that leaves them.
    Raises ValueError on fewer than two samples.
    """
    total = sum(len(run) for run in residuals)
    if total < 2:
        raise ValueError(f"expected at least 2 samples for an error; got {total}")
    naive = _mean_variance(residuals, 1)
    best = Blocked(np.sqrt(naive), 1.0, total)
    length = 1
    while sum(len(run) // length for run in residuals) >= min(least_blocks, total):
        blocks = sum(len(run) // length for run in residuals)
        variance = _mean_variance(residuals, length)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(naive > 0, variance / naive, 1.0)
        inefficiency = float(np.max(ratios))
        best = Blocked(np.sqrt(variance), max(inefficiency, 1.0), blocks)
        if length**3 > 2 * total * inefficiency**2:
            break
        length *= 2
    return best


def _mean_variance(residuals: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Variance of the mean from blocks of `length` samples; the residuals' common mean is zero."""
    means = [
        run[: len(run) // length * length].reshape(-1, length, *run.shape[1:]).mean(axis=1)
        for run in residuals
        if len(run) >= length
    ]
    blocks = np.concatenate(means)
    return np.asarray(np.mean(blocks**2, axis=0) / max(1, len(blocks) - 1))


def trend(residuals: Sequence[np.ndarray], inefficiency: float) -> float:
    """How many standard errors a linear trend, common to all runs, differs from none.

    residuals: one array [samples] a run. The slope of run r is sum c x / sum c^2 with c the centred sample number;
    slopes are added with weights sum c^2. Correlation widens the error by the square root of `inefficiency`.
    """
    numerator = denominator = variance = 0.0
    for run in residuals:
        ramp = np.arange(len(run)) - (len(run) - 1) / 2
        numerator += float(ramp @ run)
        denominator += float(ramp @ ramp)
        variance += float(np.sum((run - run.mean()) ** 2))
    spread = variance / max(1, sum(len(run) - 1 for run in residuals))
    if spread == 0 or denominator == 0:
        return 0.0
    return numerator / math.sqrt(denominator * spread * inefficiency)


def family_threshold(sigma: float, tests: int) -> float:
    """How many standard errors each of `tests` independent two-sided tests may show for `sigma` over all of them."""
    false_alarm = 2 * norm.sf(sigma)
    each = -math.expm1(math.log1p(-false_alarm) / max(1, tests))
    return float(norm.isf(each / 2))


def linear_drift(time: np.ndarray, series: np.ndarray) -> float:
    """Slope of a least-squares line through series [samples] over time [samples]; NaN where a value is NaN."""
    ramp = time - time.mean()
    return float(ramp @ (series - series.mean()) / (ramp @ ramp))


def rms_about_trend(time: np.ndarray, series: np.ndarray) -> float:
    """Root mean square deviation of a series [samples] from its least-squares line over time; 0 for fewer than three samples."""
    if len(series) < 3:
        return 0.0
    centred = time - time.mean()
    slope = float(centred @ series) / float(centred @ centred)
    return float(np.sqrt(np.mean((series - series.mean() - slope * centred) ** 2)))
