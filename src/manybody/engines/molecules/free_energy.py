"""From biased samples to populations without the bias, and from these to free energies with errors.

Every way of sampling ends in the same thing: the populations of the cells of a grid over the torsions, from all samples
and from all but one block of them in turn. A free energy is any function of populations; what leaving out a block does to
it gives its error, without a word about how the samples were made or correlated within a block.

Sources: reweighting of metadynamics, P. Tiwary and M. Parrinello, J. Phys. Chem. B 119, 736 (2015); jackknife,
R. G. Miller, Biometrika 61, 1 (1974). Windows of umbrella sampling are put together by `numerics/mbar.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.periodic import wrap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def block_of(samples: int, blocks: int) -> Indices:
    """The number of the block that each of so many samples in a row belongs to, [samples]; blocks differ by one sample."""
    return np.arange(samples, dtype=np.int64) * blocks // samples


def reweighted(bias_energy: Array, offset: Array, kT: float) -> Array:
    """The weights [samples] of metadynamics' samples: exp((V(s, t) - c(t)) / kT), their largest 1."""
    exponent = (bias_energy - offset) / kT
    return np.asarray(np.exp(exponent - exponent.max()))


def restraint_energies(torsions: Array, centres: Array, stiffness: Sequence[float], kT: float) -> Array:
    """The restraint of each window at each sample, in kT: [windows, samples].

    torsions: [samples, torsions], centres: [windows, torsions], radians; stiffness: of each torsion, energy a radian squared.
    """
    found = np.zeros((len(centres), len(torsions)))
    for n in range(torsions.shape[1]):
        places, which = np.unique(centres[:, n], return_inverse=True)  # a grid of windows has few of them along a torsion
        found += (0.5 * stiffness[n] / kT * wrap(torsions[None, :, n] - places[:, None]) ** 2)[which]
    return found


def strains(torsions: Sequence[Array], centres: Array, stiffness: Sequence[float], kT: float) -> Array:
    """The mean energy of each window's restraint over its own samples, in kT: [windows].

    On even ground kT / 2 a torsion. A ridge more curved than the restraint is stiff leaves a well on either side of the
    centre; there a restraint holds several kT.
    """
    pairs = zip(torsions, centres, strict=True)
    return np.array([restraint_energies(run, centre[None], stiffness, kT).mean() for run, centre in pairs])


def populations(torsions: Array, weights: Array, bins: int) -> Array:
    """The share of all weight in each cell of an even grid from -pi on: [bins, bins], or [bins, 1] of one torsion."""
    cells = np.floor((torsions + math.pi) * (bins / (2 * math.pi))).astype(np.int64) % bins
    flat = cells[:, 0] if cells.shape[1] == 1 else cells[:, 0] * bins + cells[:, 1]
    shape = (bins, 1 if cells.shape[1] == 1 else bins)
    counts = np.bincount(flat, weights, minlength=shape[0] * shape[1])
    return np.asarray(counts / counts.sum()).reshape(shape)


def jackknifed(function: Callable[[Array], Any], found: Array) -> Array:
    """Pseudo-values [blocks, ...] of a function of populations: n f(all) - (n - 1) f(all but one block).

    found: [1 + blocks, bins, bins], first from all samples, then with each block left out. Their mean is the estimate, free
    of its bias of first order in 1/n; their scatter over sqrt(n) is its standard error. NaN where a block holds everything.
    """
    whole, rest = np.asarray(function(found[0])), np.array([function(part) for part in found[1:]])
    with np.errstate(invalid="ignore"):
        values = len(rest) * whole - (len(rest) - 1) * rest
    return np.where(np.isfinite(values), values, np.nan)


def free_energy(share: Array | float, reference: Array | float, kT: float) -> Array:
    """-kT log(share / reference), infinite where there is nothing; elementwise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-kT * np.log(np.asarray(share) / reference))


def inefficiency(series: Sequence[Array]) -> float:
    """Mean over windows of how many samples make one independent one, of series [samples, torsions] in radians.

    From the sines of the turns from each window's mean direction, by the windows' integrated correlation times.
    """
    found = []
    for run in series:
        for turns in run.T:
            mean = math.atan2(np.sin(turns).mean(), np.cos(turns).mean())
            found.append(_inefficiency(np.sin(turns - mean)))
    return float(np.mean(found))


def _inefficiency(values: Array) -> float:
    """1 + 2 sum of the correlation function up to where it first is negative (Janke, NIC Series 10, 423 (2002))."""
    values = values - values.mean()
    spectrum = np.abs(np.fft.rfft(values, 2 * len(values))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(values)] / np.arange(len(values), 0, -1)
    if correlation[0] <= 0:
        return 1.0
    negative = np.flatnonzero(correlation < 0)
    end = int(negative[0]) if len(negative) else len(values)
    return float(1 + 2 * (correlation[1:end] / correlation[0]).sum())
