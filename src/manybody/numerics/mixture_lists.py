"""Lists of neighbours in a sheared cell, sorted by species: what the kernels of mixtures (`mixture_template.py`) run over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manybody.numerics.bricks import add_lattice_images, wrap_into_brick
from manybody.numerics.clusters import CLUSTER, Clusters, extend, extended_positions, sort_in_space
from manybody.numerics.jit import kernel
from manybody.numerics.neighbours import Near, near_atoms, near_clusters


class Kinds(NamedTuple):
    """Who is of which species: own[c, s] .. own[c, s + 1] - 1 are the atoms of species s of cluster c.

    entries[start[c, s]] .. entries[start[c, s + 1] - 1] are its neighbours of that species. own, start:
    [clusters, species + 1].
    """

    own: np.ndarray
    start: np.ndarray


class Listed(NamedTuple):
    """Atoms sorted in space, and by species in each cluster; their clusters, images, and near clusters.

    x, v [3, atoms]; names, species [atoms] in the new order; cell [3, 3] that the images belong to; base [images] their
    displacements along x then; everyone [atoms + images] all species.
    """

    x: np.ndarray
    v: np.ndarray
    names: np.ndarray
    species: np.ndarray
    cell: np.ndarray
    clusters: Clusters
    base: np.ndarray
    everyone: np.ndarray
    own: np.ndarray
    extended: np.ndarray
    candidates: Near


@kernel
def _sort_species(order: np.ndarray, first: np.ndarray, species: np.ndarray, count: int) -> np.ndarray:
    """Bring the species of each cluster into order, in place, one after the other as they came; own [clusters, species + 1]."""
    own = np.empty((first.size - 1, count + 1), np.int32)
    kept = np.empty(CLUSTER, np.int32)
    for cluster in range(first.size - 1):
        low, high = first[cluster], first[cluster + 1]
        for k in range(high - low):
            kept[k] = order[low + k]
        at = low
        for s in range(count):
            own[cluster, s] = at
            for k in range(high - low):
                if species[kept[k]] == s:
                    order[at] = kept[k]
                    at += 1
        own[cluster, count] = at
    return own


@kernel
def sort_and_list(
    x: np.ndarray, v: np.ndarray, names: np.ndarray, species: np.ndarray, count: int, cell: np.ndarray, reach: float, threads: int
) -> Listed:
    """Wrap and sort the atoms, of `count` species, and find the clusters within `reach` of each other."""
    wrap_into_brick(x, cell)
    brick = np.empty(3)
    for d in range(3):
        brick[d] = cell[d, d]
    order, first = sort_in_space(x, brick)
    own = _sort_species(order, first, species, count)
    sorted_x, sorted_v = np.empty_like(x), np.empty_like(v)
    sorted_names, sorted_species = np.empty_like(names), np.empty_like(species)
    for i in range(order.size):
        j = order[i]
        sorted_names[i], sorted_species[i] = names[j], species[j]
        for d in range(3):
            sorted_x[d, i] = x[d, j]
            sorted_v[d, i] = v[d, j]
    clusters = add_lattice_images(sorted_x, cell, first, reach)
    real = first.size - 1
    everyone = np.empty(clusters.first[real + clusters.source.size], np.int64)
    for i in range(order.size):
        everyone[i] = sorted_species[i]
    for image in range(clusters.source.size):
        start, to = first[clusters.source[image]], clusters.first[real + image]
        for k in range(clusters.first[real + image + 1] - to):
            everyone[to + k] = sorted_species[start + k]
    extended = extended_positions(sorted_x, clusters)
    candidates = near_clusters(extended, clusters, reach, threads)
    base = clusters.shift[0].copy()
    return Listed(sorted_x, sorted_v, sorted_names, sorted_species, cell, clusters, base, everyone, own, extended, candidates)


@kernel
def near_by_species(listed: Listed, count: int, reach: float) -> tuple[Near, Kinds]:
    """The atoms within `reach` of each cluster, sorted by species."""
    near = near_atoms(listed.extended, listed.clusters, listed.candidates, reach)
    start = np.empty((near.start.size, count + 1), np.int64)
    kept = np.empty(near.widest, np.int32)
    for cluster in range(near.start.size):
        low, high = near.start[cluster], near.stop[cluster]
        for k in range(high - low):
            kept[k] = near.entries[low + k]
        at = low
        for s in range(count):
            start[cluster, s] = at
            for k in range(high - low):
                if at < high:
                    near.entries[at] = kept[k]  # overwritten by the next one where the species is another
                    at += listed.everyone[kept[k]] == s
        start[cluster, count] = at
    return near, Kinds(listed.own, start)


@kernel
def move_images(listed: Listed, strain: float) -> None:
    """Bring atoms and images into place after a shear `strain` since they were sorted."""
    shift = listed.clusters.shift
    for image in range(listed.base.size):
        shift[0, image] = listed.base[image] + strain * shift[1, image]
    extend(listed.x, listed.clusters, listed.extended)


@kernel
def by_name(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Values [3, atoms] in sorted order as [atoms, 3] in the order of the atoms' names."""
    result = np.empty((names.size, 3))
    for i in range(names.size):
        for d in range(3):
            result[names[i], d] = values[d, i]
    return result
