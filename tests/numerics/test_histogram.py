"""Histograms of pair distances."""

import numpy as np
from scipy.spatial import cKDTree

from manybody.core.random import Key
from manybody.numerics.histogram import pair_distances


def test_counts_agree_with_a_tree() -> None:
    box, reach, bins = 6.0, 3.0, 24
    frames = Key.from_seed(4).generator().uniform(-box, 2 * box, (3, 200, 3))  # also atoms outside of the box
    counts = pair_distances(frames, box, reach, bins)
    for frame, row in zip(frames, counts, strict=True):
        tree = cKDTree(np.mod(frame, box), boxsize=box)
        within = tree.count_neighbors(tree, np.linspace(0, reach, bins + 1)) - len(frame)
        assert np.array_equal(np.diff(np.maximum(within, 0)), row)


def test_an_ideal_gas_fills_shells_by_their_volume() -> None:
    box, atoms, bins = 4.0, 400, 8
    frames = Key.from_seed(5).generator().uniform(0, box, (20, atoms, 3))
    counts = pair_distances(frames, box, box / 2, bins).sum(axis=0)
    edges = np.linspace(0, box / 2, bins + 1)
    expected = 20 * atoms * (atoms - 1) * 4 / 3 * np.pi * np.diff(edges**3) / box**3
    # Half as many independent pairs as ordered ones: the count scatters by sqrt(2 n). Four deviations.
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(2 * expected))
