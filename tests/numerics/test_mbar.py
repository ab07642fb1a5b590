"""MBAR: against oscillators solved in closed form, against pymbar, and against its formulae written plainly."""

import importlib
import logging
import math

import numba
import numpy as np
import pytest

from manybody.core.errors import InputError, TaskError
from manybody.numerics.mbar import _swept, mixture

STIFFNESS, CENTRES = np.array([1.0, 2.0, 4.0, 6.0, 9.0]), np.array([0.0, 0.5, 1.0, 1.5, 2.0])
COUNTS = np.array([90, 70, 83, 50, 100])
EXACT = 0.5 * np.log(STIFFNESS / STIFFNESS[0])  # -log of the integral of exp(-k (x - c)^2 / 2), less that of the first


def drawn(generator, times=1):
    """Samples [samples] of all oscillators, one after the other, and their energies [states, samples]."""
    pairs = zip(STIFFNESS, CENTRES, times * COUNTS, strict=True)
    x = np.concatenate([c + generator.standard_normal(n) / math.sqrt(k) for k, c, n in pairs])
    return x, 0.5 * STIFFNESS[:, None] * (x - CENTRES[:, None]) ** 2


def plain_shares(energies, offsets):
    exponent = offsets[:, None] - energies
    top = exponent.max(axis=0)
    below = np.exp(exponent - top).sum(axis=0)
    return np.exp(exponent - top) / below, top + np.log(below)


def test_one_pass_gives_what_the_formulae_give():
    """Few states of many lie within reach of a sample; 333 samples fill no whole number of tiles."""
    generator = np.random.default_rng(1)
    x, centres = generator.uniform(0, 10, 333), np.linspace(0, 10, 60)
    energies = 300 * (np.sort(x) - centres[:, None]) ** 2
    offsets, times = generator.normal(size=60), generator.integers(0, 3, 333).astype(float)
    density, held, overlap = _swept(energies, offsets, times)
    shares, known = plain_shares(energies, offsets)
    assert density == pytest.approx(known, rel=1e-14, abs=1e-14)
    assert held == pytest.approx(shares @ times, rel=1e-13, abs=1e-15)
    assert overlap == pytest.approx((shares * times) @ shares.T, rel=1e-13, abs=1e-15)


def test_the_solution_holds_every_state_as_often_as_it_was_sampled():
    _, energies = drawn(np.random.default_rng(2))
    solved = mixture(energies, COUNTS)
    shares, density = plain_shares(energies, solved.free_energies + np.log(COUNTS))
    assert shares.sum(axis=1) == pytest.approx(COUNTS, rel=1e-13)
    assert solved.log_density == pytest.approx(density, abs=1e-13)
    assert solved.weights() == pytest.approx(np.exp(-density) / np.exp(-density).sum())


def test_agrees_with_pymbar_in_values_and_errors():
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it advises to install another package
    pymbar = importlib.import_module("pymbar")
    _, energies = drawn(np.random.default_rng(3))
    solved = mixture(energies, COUNTS)
    there = pymbar.MBAR(energies, COUNTS, solver_protocol=({"method": "adaptive", "tol": 1e-12},))
    errors = there.compute_free_energy_differences()["dDelta_f"]
    assert solved.free_energies == pytest.approx(there.f_k, abs=1e-10)
    ours = [[solved.difference(i, j)[1] for j in range(5)] for i in range(5)]
    assert np.array(ours) == pytest.approx(errors, rel=1e-6, abs=1e-10)


def test_free_energies_of_oscillators_are_exact_within_their_errors():
    """The squared deviation from the closed form, in units of the covariance, is chi^2 of 4 in each of 60 draws."""
    generator, total = np.random.default_rng(4), 0.0
    for _ in range(60):
        solved = mixture(drawn(generator)[1], COUNTS)
        off = (solved.free_energies - EXACT)[1:]
        total += off @ np.linalg.solve(solved.covariance[1:, 1:], off)
    assert abs(total - 240) < 4 * math.sqrt(480)  # mean and variance of chi^2 of 240 are 240 and 480


def test_any_start_leads_to_the_same_solution():
    _, energies = drawn(np.random.default_rng(5))
    solved = mixture(energies, COUNTS).free_energies
    for guess in (EXACT, 3.0 + np.array([0.0, 40.0, -60.0, 500.0, -200.0])):
        assert mixture(energies, COUNTS, guess).free_energies == pytest.approx(solved, abs=1e-11)
    shifts = np.array([0.0, 700.0, -300.0, 20.0, 7.0])
    assert mixture(energies + shifts[:, None], COUNTS).free_energies == pytest.approx(solved + shifts, abs=1e-11)


def test_samples_count_as_often_as_they_are_told_to():
    _, energies = drawn(np.random.default_rng(6))
    times = np.concatenate([np.random.default_rng(n).multinomial(n, np.full(n, 1 / n)) for n in COUNTS]).astype(float)
    told, repeated = mixture(energies, COUNTS, times=times), mixture(np.repeat(energies, times.astype(int), axis=1), COUNTS)
    assert told.free_energies == pytest.approx(repeated.free_energies, abs=1e-12)
    assert told.covariance == pytest.approx(repeated.covariance, abs=1e-12)
    assert told.weights().sum() == pytest.approx(1)
    assert (told.weights()[times == 0] == 0).all()


def test_a_state_that_was_not_sampled_has_its_free_energy_and_its_means():
    """An oscillator between two of them: f = log(k / k_0) / 2 and <(x - c)^2> = 1 / k."""
    x, energies = drawn(np.random.default_rng(7), times=100)
    solved = mixture(energies, 100 * COUNTS)
    between = 0.5 * 3.0 * (x - 0.8) ** 2
    # Its error is between those of its neighbours; that of the mean square is sqrt(2 / n) / k, of 5,000 samples at least.
    assert solved.free_energy(between) == pytest.approx(0.5 * math.log(3), abs=4 * solved.errors[2])
    assert solved.errors[2] < 0.01
    assert solved.weights(between) @ (x - 0.8) ** 2 == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 5000) / 3)
    assert [solved.free_energy(row) for row in energies] == pytest.approx(list(solved.free_energies), abs=1e-11)


def test_one_state_alone_is_the_reference():
    solved = mixture(np.array([[0.3, 1.0, 2.0]]), np.array([3]))
    assert (solved.free_energies.tolist(), solved.errors.tolist()) == ([0.0], [0.0])
    assert solved.weights(np.array([0.3, 1.0, 2.0])) == pytest.approx(1 / 3)


def test_threads_change_no_bit():
    _, energies = drawn(np.random.default_rng(8))
    most = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = mixture(energies, COUNTS)
    finally:
        numba.set_num_threads(most)
    assert (mixture(energies, COUNTS).free_energies == alone.free_energies).all()


def test_states_that_do_not_overlap_are_refused():
    energies = np.array([[0.0, 0.1, 900, 950], [900, 950, 0.0, 0.1]])
    with pytest.raises(TaskError, match="states do not overlap"):
        mixture(energies, np.array([2, 2]))


@pytest.mark.parametrize(
    ("energies", "counts", "times"),
    [
        ([[0.0, math.nan], [1.0, 0.0]], [1, 1], None),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 2], None),
        ([[0.0, 1.0], [1.0, 0.0]], [2, 0], None),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 1], [1.0, 0.5]),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 1, 1], None),
    ],
)
def test_input_that_cannot_be_is_refused(energies, counts, times):
    with pytest.raises(InputError, match="MBAR: expected"):
        mixture(np.array(energies), np.array(counts), times=None if times is None else np.array(times))
