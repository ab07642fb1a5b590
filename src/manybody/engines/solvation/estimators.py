"""Free energies from windows of a coupling: by integration, by exponential averages, and by Bennett's acceptance ratio.

Everything is in units of kT. Works of window a towards b are w = u_b - u_a over the samples of a. Torch-free.

Sources: R. W. Zwanzig, J. Chem. Phys. 22, 1420 (1954); C. H. Bennett, J. Comput. Phys. 22, 245 (1976); jackknife, R. G. Miller,
Biometrika 61, 1 (1974).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

Array = NDArray[np.float64]


def exponential(works: Array) -> float:
    """-log <exp(-w)>: the free energy of the other window by Zwanzig's formula."""
    return float(np.log(len(works)) - logsumexp(-works))


def acceptance_ratio(forward: Array, backward: Array) -> float:
    """Bennett's free energy of b less that of a.  forward: works [samples of a] towards b; backward: [samples of b] towards a.

    Where sum_a f(M + w_a - dF) = sum_b f(-M + w_b + dF) with f(x) = 1 / (1 + e^x), M = log(n_a / n_b): the left side grows with
    dF, the right falls.
    """
    ratio = np.log(len(forward) / len(backward))

    def excess(difference: float) -> float:
        return float(expit(difference - ratio - forward).sum() - expit(ratio - backward - difference).sum())

    low = high = 0.5 * (exponential(forward) - exponential(backward))
    reach = 1.0
    while excess(low) > 0 or excess(high) < 0:
        low, high, reach = low - reach * (excess(low) > 0), high + reach * (excess(high) < 0), 2 * reach
    return low if low == high else float(brentq(excess, low, high, xtol=1e-12))


def overlap(forward: Array, backward: Array) -> float:
    """How alike two windows are, 0 to 1/2: the mean over all samples of p_a p_b, p_a the share that window a has in a sample.

    It is the element of the overlap matrix between two states with as many samples each, times the share of the samples.
    """
    difference, ratio = acceptance_ratio(forward, backward), np.log(len(forward) / len(backward))
    shares = np.concatenate([expit(difference - ratio - forward), expit(difference - ratio + backward)])
    return float((shares * (1 - shares)).sum() / min(len(forward), len(backward)))


def jackknifed(function: Callable[[int], float], blocks: int) -> Array:
    """Pseudo-values [blocks] of what `function` makes of all samples but those of a block, of all of them at -1.

    n f(all) - (n - 1) f(all but one block): their mean is the estimate, free of its bias of first order in 1/n, and their
    scatter over sqrt(n) is its standard error.
    """
    whole = function(-1)
    rest = np.array([function(block) for block in range(blocks)])
    return np.asarray(blocks * whole - (blocks - 1) * rest)
