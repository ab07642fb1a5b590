"""From biased samples to free energies: against closed forms, and against other ways to the same."""

import math

import numpy as np
import pytest

from manybody.engines.molecules.free_energy import (
    block_of,
    free_energy,
    inefficiency,
    jackknifed,
    populations,
    restraint_energies,
    reweighted,
)
from manybody.numerics.mbar import mixture

KT = 2.494


def ring(turns):
    """A potential over one torsion with three wells, in kT."""
    return 2.0 * np.cos(3 * turns) + 1.5 * np.cos(turns + 0.4)


def drawn(energy, count, generator):
    """Angles [count, 1] from exp(-energy), by the inverse of its integral on a fine grid."""
    nodes = np.linspace(-math.pi, math.pi, 20_001)
    share = np.cumsum(np.exp(-energy(nodes)))
    return np.interp(generator.uniform(share[0], share[-1], count), share, nodes)[:, None]


def exact_shares(bins):
    fine = (np.arange(bins * 200) + 0.5) / (bins * 200) * 2 * math.pi - math.pi
    shares = np.exp(-ring(fine)).reshape(bins, 200).sum(axis=1)
    return shares / shares.sum()


def check_shares(found, bins):
    """Free energies of cells, from jackknifed populations, against the closed form: as far off as their errors say."""
    known = exact_shares(bins)
    values = jackknifed(lambda share: free_energy(share[:, 0], share[: bins // 2].sum(), 1.0), found)
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    score = (values.mean(axis=0) + np.log(known / known[: bins // 2].sum())) / error
    # t with 9 degrees of freedom: mean square 9/7; of 12 correlated cells it is below 3 but once in a few thousand.
    assert np.mean(score**2) < 3
    assert error.max() < 0.2


def test_umbrella_samples_give_the_populations_of_a_ring():
    bins, blocks, stiffness, generator = 12, 10, 8.0, np.random.default_rng(11)
    centres = -math.pi + 2 * math.pi * np.arange(8)[:, None] / 8
    runs = [
        drawn(lambda turns, c=c: ring(turns) + restraint_energies(turns[:, None], c[None], [stiffness], 1.0)[0], 1000, generator)
        for c in centres
    ]
    kept, counts = np.concatenate(runs), np.full(8, 1000)
    energies, block = restraint_energies(kept, centres, [stiffness], 1.0), np.tile(block_of(1000, blocks), 8)
    whole = mixture(energies, counts)
    found = [populations(kept, whole.weights(), bins)]
    for left in range(blocks):
        part = mixture(energies, counts - 100, whole.free_energies, (block != left).astype(float))
        found.append(populations(kept, part.weights(), bins))
    check_shares(np.array(found), bins)


def test_reweighted_samples_give_the_populations_of_a_ring():
    """A bias that fills most of the wells, at two times in which it differs by a constant that c(t) takes off."""
    bins, blocks, generator = 12, 10, np.random.default_rng(12)
    bias = {offset: (lambda turns, offset=offset: offset - 0.8 * ring(turns)) for offset in (0.0, 30.0)}
    early, late = (drawn(lambda turns, v=v: ring(turns) + v(turns), 4000, generator) for v in bias.values())
    kept = np.concatenate([early, late])
    values = np.concatenate([KT * bias[0.0](early[:, 0]), KT * bias[30.0](late[:, 0])])
    weights = reweighted(values, np.repeat([0.0, 30.0 * KT], 4000), KT)
    block = block_of(8000, blocks)
    found = [populations(kept[block != left], weights[block != left], bins) for left in range(-1, blocks)]
    check_shares(np.array(found), bins)


def test_the_jackknife_of_a_mean_is_the_mean_and_its_error():
    shares = np.random.default_rng(1).uniform(size=(20, 1, 1))
    found = np.concatenate([shares.mean(keepdims=True), (shares.sum() - shares) / 19])
    values = jackknifed(lambda share: share[0, 0], found)
    assert values == pytest.approx(shares[:, 0, 0])
    assert math.isnan(jackknifed(lambda share: math.inf if share[0, 0] == found.max() else 1.0, found).max())


def test_inefficiency_of_a_series_with_a_known_one():
    """An autoregressive series x' = a x + noise: (1 + a) / (1 - a)."""
    generator, a = np.random.default_rng(8), 0.8
    series = np.zeros((40_000, 1))
    noise = 0.05 * generator.standard_normal(len(series))
    for n in range(1, len(series)):
        series[n] = a * series[n - 1] + noise[n]
    assert inefficiency([series + 3.0]) == pytest.approx((1 + a) / (1 - a), rel=0.15)
    assert restraint_energies(np.array([[3.1]]), np.array([[-3.1]]), [2.0], 1.0)[0, 0] == pytest.approx((2 * math.pi - 6.2) ** 2)
