"""The template of pair sums with first and second derivatives. `operators.py` replaces the part between the marks.

As it stands it is the sum of p_0 / r^12, so that it can be read, linted and run like any other module. Everything is a
function of s = r^2, of which u(r) is taken to be a function: with r_d the vector of a pair,

    du/dr_d = w r_d,   w = 2 du/ds,      dw/dr_d = z r_d,   z = 4 d2u/ds2.

Lists are those of `lattice_list.py`: they hold every pair from both sides, so each sum is twice what is meant.
"""

from __future__ import annotations

import numpy as np

from manybody.numerics.jit import kernel


# --- formula ---
@kernel
def first(s: float, p: np.ndarray, out: np.ndarray) -> None:
    """u, w, and du/dp_k for each parameter k, into out [2 + parameters]."""
    out[0] = p[0] / s**6
    out[1] = -12.0 * p[0] / s**7
    out[2] = 1.0 / s**6


@kernel
def second(s: float, p: np.ndarray, out: np.ndarray) -> None:
    """w, z, dw/dp_k for each k, and d2u/dp_k dp_l for each k and l, into out [2 + parameters + parameters^2]."""
    out[0] = -12.0 * p[0] / s**7
    out[1] = 168.0 * p[0] / s**8
    out[2] = -12.0 / s**7
    out[3] = 0.0


# --- end of formula ---


@kernel
def _edges(table: np.ndarray, s: float, edge: np.ndarray, curved: np.ndarray) -> None:
    """What a shift to zero at r^2 = s takes off u, du/dp and d2u/dp2: into edge, curved [species, species, ..]."""
    parameters = table.shape[2]
    for a in range(table.shape[0]):
        for b in range(table.shape[1]):
            first(s, table[a, b], edge[a, b])
            second(s, table[a, b], curved[a, b])
            edge[a, b, 1] = 0.0
            curved[a, b, : 2 + parameters] = 0.0


@kernel
def energy(
    y: np.ndarray, clusters: np.ndarray, start: np.ndarray, entries: np.ndarray, species: np.ndarray, table: np.ndarray,
    cutoff: float, shifted: bool,
) -> float:  # fmt: skip
    """The energy of all pairs within the cutoff.

    y: [3, points], sorted atoms, then ghosts; clusters, start, entries: as in `lattice_list.LatticeList`; species: of each
    point; table: parameters [species, species, parameters]; shifted: whether u(cutoff) is taken off.
    """
    none = np.zeros((3, clusters[-1]))
    spare, cell, by_table = np.zeros_like(none), np.zeros((3, 3)), np.zeros_like(table)
    return gradients(y, clusters, start, entries, species, table, cutoff, shifted, spare, cell, by_table)


@kernel
def gradients(
    y: np.ndarray, clusters: np.ndarray, start: np.ndarray, entries: np.ndarray, species: np.ndarray, table: np.ndarray,
    cutoff: float, shifted: bool, by_atom: np.ndarray, by_strain: np.ndarray, by_table: np.ndarray,
) -> float:  # fmt: skip
    """The energy, and its gradients by sorted atoms [3, atoms], by strain (sum r_a du/dr_b, [3, 3]) and by `table`."""
    count = table.shape[2]
    out, edge = np.empty(2 + count), np.zeros((table.shape[0], table.shape[1], 2 + count))
    if shifted:
        _edges(table, cutoff * cutoff, edge, np.empty((table.shape[0], table.shape[1], 2 + count + count * count)))
    total, r = 0.0, np.empty(3)
    for c in range(clusters.size - 1):
        for i in range(clusters[c], clusters[c + 1]):
            for n in range(start[c], start[c + 1]):
                j = entries[n]
                for d in range(3):
                    r[d] = y[d, j] - y[d, i]
                s = r[0] * r[0] + r[1] * r[1] + r[2] * r[2]
                if s > cutoff * cutoff or i == j:
                    continue
                a, b = species[i], species[j]
                first(s, table[a, b], out)
                total += 0.5 * (out[0] - edge[a, b, 0])
                for k in range(count):
                    by_table[a, b, k] += 0.5 * (out[2 + k] - edge[a, b, 2 + k])
                for d in range(3):
                    by_atom[d, i] -= out[1] * r[d]
                    for e in range(3):
                        by_strain[d, e] += 0.5 * out[1] * r[d] * r[e]
    return total


@kernel
def curvature(
    y: np.ndarray, clusters: np.ndarray, start: np.ndarray, entries: np.ndarray, species: np.ndarray, table: np.ndarray,
    cutoff: float, shifted: bool, along: np.ndarray, along_table: np.ndarray,
    by_atom: np.ndarray, by_strain: np.ndarray, by_table: np.ndarray,
) -> None:  # fmt: skip
    """The gradients, as in `gradients`, of the energy's derivative along a change of points [3, points] and of the table."""
    count = table.shape[2]
    size = 2 + count + count * count
    out, edge = np.empty(size), np.zeros((table.shape[0], table.shape[1], size))
    if shifted:
        _edges(table, cutoff * cutoff, np.empty((table.shape[0], table.shape[1], 2 + count)), edge)
    r, change = np.empty(3), np.empty(3)
    for c in range(clusters.size - 1):
        for i in range(clusters[c], clusters[c + 1]):
            for n in range(start[c], start[c + 1]):
                j = entries[n]
                for d in range(3):
                    r[d], change[d] = y[d, j] - y[d, i], along[d, j] - along[d, i]
                s = r[0] * r[0] + r[1] * r[1] + r[2] * r[2]
                if s > cutoff * cutoff or i == j:
                    continue
                a, b = species[i], species[j]
                second(s, table[a, b], out)
                stretch = r[0] * change[0] + r[1] * change[1] + r[2] * change[2]
                pull = out[1] * stretch
                for k in range(count):
                    pull += out[2 + k] * along_table[a, b, k]
                    bend = out[2 + k] * stretch
                    for m in range(count):
                        place = 2 + count + k * count + m
                        bend += (out[place] - edge[a, b, place]) * along_table[a, b, m]
                    by_table[a, b, k] += 0.5 * bend
                for d in range(3):
                    push = out[0] * change[d] + pull * r[d]
                    by_atom[d, i] -= push
                    for e in range(3):
                        by_strain[e, d] += 0.5 * r[e] * push
