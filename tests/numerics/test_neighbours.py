"""The lists find every pair, whatever the shape of the box and the density."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.numerics.clusters import CLUSTER, add_images, extended_positions, sort_in_space, wrap
from manybody.numerics.neighbours import moved, near_atoms, near_clusters


def lists(x, box, wide, narrow, threads=1):
    """The list of atoms of positions [3, atoms]; also sorted positions, clusters, extended positions."""
    wrap(x, box)
    order, first = sort_in_space(x, box)
    x = np.ascontiguousarray(x[:, order])
    clusters = add_images(x, box, first, wide)
    extended = extended_positions(x, clusters)
    return x, first, extended, near_atoms(extended, clusters, near_clusters(extended, clusters, wide, threads), narrow)


@settings(max_examples=40, deadline=None)
@given(
    atoms=st.integers(2, 400),
    density=st.floats(0.005, 2.0),
    shape=st.tuples(st.floats(0.6, 1.6), st.floats(0.6, 1.6)),
    share=st.floats(0.05, 0.5),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_every_image_within_reach_is_listed_once(atoms, density, shape, share, threads, seed):
    box = (atoms / density) ** (1 / 3) * np.array([shape[0], shape[1], 1.0])
    reach = share * box.min()
    x = np.random.default_rng(seed).uniform(-1, 2, (3, atoms)) * box[:, None]
    x, first, extended, near = lists(x, box, 1.3 * reach, reach, threads)
    assert first[0] == 0
    assert first[-1] == atoms
    assert 1 <= np.diff(first).min() <= np.diff(first).max() <= CLUSTER
    for c in range(len(first) - 1):
        members = np.arange(first[c], first[c + 1])
        listed = near.entries[near.start[c] : near.stop[c]]
        assert len(set(listed)) == len(listed)
        assert not set(listed) & set(members)
        for i in members:
            around = extended[:, np.concatenate([listed, members])]
            found = np.linalg.norm(around - x[:, i, None], axis=0) <= reach
            apart = x - x[:, i, None]
            apart -= box[:, None] * np.round(apart / box[:, None])
            assert found.sum() == (np.linalg.norm(apart, axis=0) <= reach).sum()


def test_the_list_is_no_wider_than_asked_for():
    box = np.array([9.0, 9.0, 9.0])
    x, first, extended, near = lists(np.random.default_rng(1).uniform(0, 9, (3, 500)), box, 3.5, 2.0)
    for c in range(len(first) - 1):
        apart = extended[:, near.entries[near.start[c] : near.stop[c]], None] - x[:, None, first[c] : first[c + 1]]
        assert np.linalg.norm(apart, axis=0).min(axis=1).max() <= 2.0
    assert near.widest == (near.stop - near.start).max()


@pytest.mark.parametrize("value", [0.3, np.nan, np.inf])
def test_moved_counts_what_went_far_and_what_is_no_number(value):
    x = np.zeros((3, 20))
    reference = x.copy()
    x[1, 7] = value
    assert moved(x, reference, 0.25) == 1
    assert moved(x, reference, 0.35) == (0 if value == 0.3 else 1)
