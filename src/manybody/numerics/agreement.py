"""Whether two estimates of one curve agree, where the values of a curve are not independent of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f, norm

Array = NDArray[np.float64]

LARGEST = 37.0  # standard normal deviate beyond which a double's tail probability is zero


@dataclass(frozen=True)
class Agreement:
    """How far two curves are apart.

    deviate: the standard normal deviate of as unlikely a difference (negative where they are closer than usual).
    mean_square: mean of the squared differences over their variances, over `bins` bins; about 1 is expected. effective: how
    many independent values the bins are worth.
    """

    deviate: float
    mean_square: float
    bins: int
    effective: float

    @property
    def excess(self) -> float:
        """The deviate where curves are further apart than usual, else 0: to be close is no fault."""
        return max(self.deviate, 0.0) if math.isfinite(self.deviate) else math.nan


def compare_curves(first: Sequence[Array], second: Sequence[Array]) -> Agreement:
    """How far the means of two sets of independent samples are apart.  first, second: one array [samples, bins] a run.

    With d the difference of the means and C the covariance of d that the scatter of the samples tells, the statistic is
    T = mean_b d_b^2 / C_bb, over the bins that are finite in all samples of both. Under agreement its mean is 1 and its
    variance 2 tr(R^2) / bins^2, R being the correlation matrix: that of a chi-squared over its g = bins^2 / tr(R^2) degrees
    of freedom (F. E. Satterthwaite, Biometrics Bull. 2, 110 (1946)). Because C is estimated from n samples, T follows an F
    distribution of g and n - 2 degrees of freedom; tr(R^2) is freed of what n samples add to it by chance, bins^2 / (n - 1).
    """
    left, right = np.concatenate(list(first)), np.concatenate(list(second))
    kept = np.isfinite(left).all(axis=0) & np.isfinite(right).all(axis=0)
    left, right = left[:, kept], right[:, kept]
    bins, freedom = left.shape[1], len(left) + len(right) - 2
    if not bins or min(len(left), len(right)) < 2:
        return Agreement(math.nan, math.nan, bins, 0.0)
    apart = left.mean(axis=0) - right.mean(axis=0)
    scatter = np.concatenate([_scaled(left), _scaled(right)])
    variance = (scatter**2).sum(axis=0)
    mean_square = float(np.mean(apart**2 / variance))
    inner = (scatter / np.sqrt(variance)) @ (scatter / np.sqrt(variance)).T
    # tr(R^2) is the sum of squares of this small matrix of samples, which has the same eigenvalues as R.
    correlated = max(float((inner**2).sum()) - bins**2 / freedom, float(bins))
    effective = bins**2 / correlated
    return Agreement(_deviate(mean_square, effective, freedom), mean_square, bins, effective)


def _scaled(samples: Array) -> Array:
    """Deviations [samples, bins] from the mean, such that the sum of their squares is the variance of the mean."""
    return np.asarray((samples - samples.mean(axis=0)) / math.sqrt(len(samples) * (len(samples) - 1)))


def _deviate(ratio: float, freedom: float, samples: int) -> float:
    """The standard normal deviate with the same tail probability as an F."""
    above, below = f.sf(ratio, freedom, samples), f.cdf(ratio, freedom, samples)
    deviate = norm.isf(above) if above < 0.5 else norm.ppf(below)
    return float(np.clip(deviate, -LARGEST, LARGEST))
