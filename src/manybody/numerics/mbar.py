"""Samples of several states put together: the multistate Bennett acceptance ratio (MBAR), by damped Newton steps.

With p_k(n) = N_k exp(f_k - u_k(n)) / sum_l N_l exp(f_l - u_l(n)), the share that state k has in sample n, free energies f
are where sum_n p_k(n) = N_k for every k: the minimum of the convex function

    F(f) = sum_n log sum_k N_k exp(f_k - u_k(n)) - sum_k N_k f_k,

whose gradient is held_k - N_k with held_k = sum_n p_k(n), and whose curvature is H = diag(held) - A with the overlap
A_kl = sum_n p_k(n) p_l(n). One pass over the reduced energies gives all of them. Shares that no double can tell from 0 are
left out of it: where a sample lies within reach of a few states only, few are left.

Sources: M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008); Z. Tan, J. Am. Stat. Assoc. 99, 1027 (2004), for
F; T. Sun and Q. Tran-Dinh, Math. Program. 178, 145 (2019), for the damping of Newton's steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import prange
from numpy.typing import NDArray
from scipy.special import logsumexp

from manybody.core.errors import InputError, Problem, TaskError
from manybody.numerics import jit

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LANES = 16  # samples of a tile: neighbours in a run lie within reach of the same states
STRETCHES = 8  # that samples are shared out in, whatever the number of threads: sums have the same bits on any of them
ROUND_OFF = float(np.finfo(np.float64).eps)
MOST_STEPS = 500  # ten or so are the rule, some tens where the start is far off
REMEDY = "Take more of them, closer ones, or sample longer."


@dataclass(frozen=True)
class Mixture:
    """What MBAR makes of the samples of several states.

    free_energies [states]: of each over kT, the first 0; log_density [samples]: log sum_k N_k exp(f_k - u_k(n)), the mixture
    that samples are from; overlap [states, states]: A_kl = sum_n p_k(n) p_l(n), whose rows add up to `counts` [states];
    times [samples]: how often each counts.
    """

    free_energies: Array
    log_density: Array
    overlap: Array
    counts: Array
    times: Array

    @cached_property
    def covariance(self) -> Array:
        """Of the free energies less the first, for independent samples: [states, states], the first row and column 0.

        It is H^-1 V H^-1 with V = A - A N^-1 A, the variance of held as each state has a given number of samples. With
        H = N - A that is H^-1 (N - H) N^-1 = H^-1 - N^-1 (Tan 2004). Raises `TaskError` where H is singular to rounding.
        """
        scale, lower = 1 / np.sqrt(self.counts[1:]), _lower(self.counts, self.overlap)
        if lower is None:
            raise TaskError(f"MBAR's errors have no bound: states hardly overlap. {REMEDY}")
        found = np.zeros_like(self.overlap)
        found[1:, 1:] = scale[:, None] * np.array([_solved(lower, row) for row in np.diag(scale)]).T
        found[1:, 1:] -= np.diag(1 / self.counts[1:]) + 1 / self.counts[0]
        return found

    @property
    def errors(self) -> Array:
        """Standard errors of the free energies less the first, over kT, [states], for independent samples."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    def difference(self, first: int, last: int) -> tuple[float, float]:
        """Free energy of state `last` less that of `first` and its standard error for independent samples, over kT."""
        variance = self.covariance[first, first] + self.covariance[last, last] - 2 * self.covariance[first, last]
        return float(self.free_energies[last] - self.free_energies[first]), math.sqrt(max(0.0, float(variance)))

    def weights(self, energies: Array | float = 0.0) -> Array:
        """The weight of each sample in a state of reduced energies [samples], adding up to 1: [samples].

        The state need not be among those sampled; without energies, samples count as where nothing is imposed (u = 0).
        """
        exponent = -energies - self.log_density
        weights = self.times * np.exp(exponent - exponent[self.times > 0].max())
        return np.asarray(weights / weights.sum())

    def free_energy(self, energies: Array | float) -> float:
        """The free energy over kT of a state of reduced energies [samples], sampled or not, less that of the first."""
        return -float(logsumexp(-energies - self.log_density, b=self.times))


def mixture(energies: Array, counts: Indices, guess: Array | None = None, times: Array | None = None) -> Mixture:
    """MBAR's solution.  energies: reduced energies u_k(n), [states, samples], over kT; counts: samples of each state, [states].

    guess [states]: free energies to begin with; times [samples]: how often a sample counts (0 leaves it out, bootstraps
    count some twice), by default once. Samples may come in any order. Raises `TaskError` where states do not overlap, and
    `InputError` where shapes, counts or energies cannot be.

    Along a Newton step d, |F'''| <= r F'' with r = max d - min d, so a share log(1 + r) / r of it lowers F from wherever it
    begins, and becomes all of it as r vanishes. Where H is singular, as far from the solution, states are moved to their
    self-consistent values instead, which lowers F too. It ends where the next step promises less than F is rounded by.
    """
    sampled, times = np.asarray(counts, dtype=np.float64), np.ones(energies.shape[1]) if times is None else times
    _refuse_unless_sound(energies, sampled, times)
    free = np.zeros(len(sampled)) if guess is None else guess - guess[0]
    ends = False
    for _ in range(MOST_STEPS):
        density, held, overlap = _swept(energies, free + np.log(sampled), times)
        if ends:
            return Mixture(free, density, overlap, sampled, times)
        step = _newton_step(held, overlap, sampled)
        if step is None:
            step = np.clip(np.log(sampled / np.maximum(held, ROUND_OFF)), math.log(ROUND_OFF), -math.log(ROUND_OFF))
            if np.ptp(step) < math.sqrt(ROUND_OFF):
                break
        else:
            rounding = ROUND_OFF * float(times @ np.abs(density) + sampled @ np.abs(free))
            ends = float(step @ (sampled - held)) < rounding
            reach = float(np.ptp(step))
            step *= math.log1p(reach) / reach if reach > 0 else 1.0
        free = free + step - step[0]
    raise TaskError(f"MBAR found no solution: states do not overlap. {REMEDY}")


def _refuse_unless_sound(energies: Array, counts: Array, times: Array) -> None:
    remedy = "Give the reduced energy of every sample in every state."
    states, samples = energies.shape
    if counts.shape != (states,) or times.shape != (samples,) or (counts <= 0).any() or (times < 0).any():
        came = f"{counts.shape} with the least {counts.min(initial=math.inf):g}, and {times.shape}"
        expected = f"counts [{states}] above 0 and times [{samples}] of at least 0"
        raise InputError(Problem("MBAR", expected, came, remedy))
    if not math.isclose(counts.sum(), times.sum()):
        raise InputError(Problem("MBAR", f"{counts.sum():g} samples, as counted", f"{times.sum():g}", remedy))
    if np.isnan(energies).any():
        raise InputError(Problem("MBAR", "reduced energies", f"{np.isnan(energies).sum()} NaN", remedy))


def _newton_step(held: Array, overlap: Array, counts: Array) -> Array | None:
    """H^-1 (N - held) with its first element 0, [states]; None where H is singular to rounding."""
    if (held <= 0).any() or (lower := _lower(held, overlap)) is None:
        return None
    scale = 1 / np.sqrt(held[1:])
    return np.concatenate([[0.0], scale * _solved(lower, scale * (counts - held)[1:])])


def _lower(held: Array, overlap: Array) -> Array | None:
    """The Cholesky factor of H without the first state, scaled by 1 / sqrt(held) from both sides: [states - 1, states - 1].

    None where an eigenvalue, at most 1 now, is not above rounding: states exchange nothing that can be told from it.
    """
    scale = 1 / np.sqrt(held[1:])
    scaled = -overlap[1:, 1:] * scale[:, None] * scale
    scaled[np.diag_indices_from(scaled)] += 1 - len(held) * ROUND_OFF
    lower = np.zeros_like(scaled)
    return lower if _factorise(scaled, lower) else None


@jit.kernel
def _factorise(matrix: np.ndarray, lower: np.ndarray) -> bool:
    """The Cholesky factor goes into `lower`; whether there is one. LAPACK's threads and Numba's get in each other's way."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            if i > j:
                lower[i, j] = rest / lower[j, j]
            elif rest > 0:
                lower[i, i] = math.sqrt(rest)
            else:
                return False
    return True


@jit.kernel
def _solved(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x of L L^T x = right."""
    found = right.copy()
    for i in range(found.size):
        for k in range(i):
            found[i] -= lower[i, k] * found[k]
        found[i] /= lower[i, i]
    for i in range(found.size - 1, -1, -1):
        found[i] /= lower[i, i]
        for k in range(i):
            found[k] -= lower[i, k] * found[i]
    return found


def _swept(energies: Array, offsets: Array, times: Array) -> tuple[Array, Array, Array]:
    """One pass: log_density [samples], held [states] and overlap [states, states] at f_k + log N_k = `offsets`."""
    jit.start_threads()
    states, samples = energies.shape
    density, held, overlap = np.empty(samples), np.zeros((STRETCHES, states)), np.zeros((STRETCHES, states, states))
    tiles = -(-samples // LANES)
    ends = LANES * (np.arange(STRETCHES + 1) * tiles // STRETCHES)
    ends[-1] = samples
    faintest = math.log(ROUND_OFF / states)
    _sweep(np.ascontiguousarray(energies), offsets, times, ends, faintest, density, held, overlap)
    whole = np.tril(overlap.sum(axis=0))
    return density, held.sum(axis=0), whole + np.tril(whole, -1).T


@jit.threaded_kernel
def _sweep(
    energies: np.ndarray, offsets: np.ndarray, times: np.ndarray, ends: np.ndarray, faintest: float,
    density: np.ndarray, held: np.ndarray, overlap: np.ndarray,
) -> None:  # fmt: skip
    """`_sweep_stretch` over all stretches."""
    for part in prange(ends.size - 1):
        _sweep_stretch(energies, offsets, times, ends[part], ends[part + 1], faintest, density, held[part], overlap[part])


@jit.kernel
def _sweep_stretch(
    energies: np.ndarray, offsets: np.ndarray, times: np.ndarray, first: int, last: int, faintest: float,
    density: np.ndarray, held: np.ndarray, overlap: np.ndarray,
) -> None:  # fmt: skip
    """Add up one stretch of samples, tile by tile; `overlap` below and on its diagonal."""
    near = np.empty(energies.shape[0], np.int64)
    shares = np.empty((energies.shape[0], LANES))
    top, whole = np.empty(LANES), np.empty(LANES)
    for begin in range(first, last, LANES):
        lanes = min(LANES, last - begin)
        _find_top(energies, offsets, begin, lanes, top)
        count = _find_near(energies, offsets, begin, lanes, faintest, top, near, shares, whole)
        for lane in range(lanes):
            density[begin + lane] = top[lane] + math.log(whole[lane])
            whole[lane] = math.sqrt(times[begin + lane]) / whole[lane]
        for a in range(count):
            for lane in range(lanes):
                shares[a, lane] *= whole[lane]
                held[near[a]] += shares[a, lane] * math.sqrt(times[begin + lane])
            for lane in range(lanes, LANES):
                shares[a, lane] = 0.0
            for b in range(a + 1):
                product = 0.0
                for lane in range(LANES):
                    product += shares[a, lane] * shares[b, lane]
                overlap[near[a], near[b]] += product


@jit.kernel
def _find_top(energies: np.ndarray, offsets: np.ndarray, begin: int, lanes: int, top: np.ndarray) -> None:
    """The largest exponent of each sample of a tile."""
    top[:] = -np.inf
    for k in range(energies.shape[0]):
        for lane in range(lanes):
            top[lane] = max(top[lane], offsets[k] - energies[k, begin + lane])


@jit.kernel
def _find_near(
    energies: np.ndarray, offsets: np.ndarray, begin: int, lanes: int, faintest: float,
    top: np.ndarray, near: np.ndarray, shares: np.ndarray, whole: np.ndarray,
) -> int:  # fmt: skip
    """The states that any sample of a tile has a share in, their exponentials, and the sums of these; how many states."""
    count = 0
    whole[:] = 0.0
    for k in range(energies.shape[0]):
        largest = -np.inf
        for lane in range(lanes):
            largest = max(largest, offsets[k] - energies[k, begin + lane] - top[lane])
        if largest > faintest:
            near[count] = k
            for lane in range(lanes):
                shares[count, lane] = math.exp(offsets[k] - energies[k, begin + lane] - top[lane])
                whole[lane] += shares[count, lane]
            count += 1
    return count
