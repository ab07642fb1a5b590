"""From biased samples to populations without the bias, and from these to free energies with errors.

Every way of sampling ends in the same thing: the populations of the cells of a grid over the torsions, from all samples
and from all but one block of them in turn. A free energy is any function of populations; what leaving out a block does to
it gives its error, without a word about how the samples were made or correlated within a block.

Sources: MBAR, M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), by pymbar; reweighting of metadynamics,
P. Tiwary and M. Parrinello, J. Phys. Chem. B 119, 736 (2015); jackknife, R. G. Miller, Biometrika 61, 1 (1974).
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem, TaskError
from manybody.numerics.periodic import wrap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SOLVED = 1e-9  # kT: change of the windows' free energies in the last step, far below any statistical error
LONGEST = 4.0  # kT: where a Newton step is longer, the solution is still too far for a parabola
MOST_STEPS = 200  # of Newton's method; ten or so are the rule


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
        found += 0.5 * stiffness[n] / kT * wrap(torsions[None, :, n] - centres[:, None, n]) ** 2
    return found


def strains(torsions: Sequence[Array], centres: Array, stiffness: Sequence[float], kT: float) -> Array:
    """The mean energy of each window's restraint over its own samples, in kT: [windows].

    On even ground kT / 2 a torsion. A ridge more curved than the restraint is stiff leaves a well on either side of the
    centre; there a restraint holds several kT.
    """
    pairs = zip(torsions, centres, strict=True)
    return np.array([restraint_energies(run, centre[None], stiffness, kT).mean() for run, centre in pairs])


@dataclass(frozen=True)
class Mixture:
    """What MBAR makes of the samples of several windows.

    free_energies [windows]: of each in kT, the first 0; weights [samples]: of the samples without any restraint, adding up
    to 1.
    """

    free_energies: Array
    weights: Array


def mixture(energies: Array, counts: Indices, guess: Array | None = None) -> Mixture:
    """MBAR's solution by Newton's method.  energies: [windows, samples] in kT; counts, guess: [windows].

    With p_k(n) = N_k exp(f_k - u_k(n)) / sum_l N_l exp(f_l - u_l(n)), the share that window k has in sample n, the solution
    is where sum_n p_k(n) = N_k for every k. That is the gradient of a concave function of f, so Newton's steps, no longer
    than `LONGEST`, find it. Raises `TaskError` where windows do not overlap.
    """
    free = np.zeros(len(counts)) if guess is None else guess.copy()
    shares = np.empty_like(energies)
    for _ in range(MOST_STEPS):
        np.subtract((free + np.log(counts))[:, None], energies, out=shares)
        shares -= shares.max(axis=0)
        np.exp(shares, out=shares)
        shares /= shares.sum(axis=0)
        held = shares.sum(axis=1)
        curvature = np.diag(held) - shares @ shares.T
        try:
            step = np.linalg.solve(curvature[1:, 1:], (counts - held)[1:])
        except np.linalg.LinAlgError:
            break
        longest = float(np.abs(step).max(initial=0.0))
        if not math.isfinite(longest):
            break
        free[1:] += step * min(1.0, LONGEST / max(longest, LONGEST))
        if longest < SOLVED:
            return Mixture(free, free_weights(energies, counts, free))
    raise TaskError("MBAR found no solution: windows do not overlap. Take more windows, or weaker ones, or sample longer.")


def free_weights(energies: Array, counts: Indices, free_energies: Array) -> Array:
    """w_n = 1 / sum_k N_k exp(f_k - u_k(n)), made to add up to 1: the samples' weights without any restraint, [samples]."""
    exponent = (free_energies + np.log(counts))[:, None] - energies
    top = exponent.max(axis=0)
    logarithm = -(top + np.log(np.exp(exponent - top).sum(axis=0)))
    weights = np.exp(logarithm - logarithm.max())
    return np.asarray(weights / weights.sum())


def confirmed(energies: Array, counts: Indices, guess: Array) -> tuple[Array, Array]:
    """The windows' free energies and their standard errors beside the first, kT, both [windows], as pymbar has them.

    pymbar goes on from `guess` to its own solution. Its errors take all samples for independent. Raises `InputError` where
    pymbar is missing.
    """
    solver = ({"method": "adaptive", "tol": SOLVED, "options": {"maxiter": MOST_STEPS}},)
    solved = _pymbar().MBAR(energies, counts, initial_f_k=guess, solver_protocol=solver)
    errors = solved.compute_free_energy_differences()["dDelta_f"][0]
    return np.asarray(solved.f_k, dtype=np.float64), np.asarray(errors, dtype=np.float64)


def _pymbar() -> Any:
    """pymbar, without its advice to install another package."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    try:
        return importlib.import_module("pymbar")
    except ImportError as error:
        remedy = "Install it: pip install 'manybody[molecules]'."
        raise InputError(Problem("umbrella sampling", "pymbar to solve MBAR with", "no such package", remedy)) from error


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
