"""The template of every pair kernel. `pairs.py` replaces the part between the marks by a potential's own formula.

As it stands it is the kernel of 1/r^12, so that it can be read, linted and run like any other module.

For each cluster the positions of its neighbours are gathered once into a contiguous buffer, which is filled up with
atoms far away to a whole number of SIMD registers. Then a loop without branches runs over it, two atoms of the cluster
at a time, so that one division serves two pairs: 1/a = b/(ab), 1/b = a/(ab).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from manybody.numerics.clusters import BEYOND, CLUSTER, Clusters, add_images, extend, extended_positions, sort_in_space, wrap
from manybody.numerics.integrators import drift, heat_bath, kick, kick_and_drift, kinetic_energy, runaway
from manybody.numerics.jit import kernel, threaded_kernel
from manybody.numerics.neighbours import Near, moved, near_atoms, near_clusters

LANES = 8  # double-precision numbers in the widest SIMD register; what is left over would run one by one


# --- formula ---
@kernel
def coefficients(parameters: np.ndarray) -> tuple[float, ...]:
    """What depends on the parameters alone, computed once a call."""
    return (parameters[0], 12.0 * parameters[0])


@kernel
def pair_energy(r2: float, inverse: float, c: tuple[float, ...]) -> float:
    """The energy of a pair; `inverse` is 1/r2."""
    return c[0] * (inverse * inverse * inverse * inverse * inverse * inverse)


@kernel
def pair_force(r2: float, inverse: float, c: tuple[float, ...]) -> float:
    """The force of a pair over its distance, -u'(r)/r."""
    return c[1] * (inverse * inverse * inverse * inverse * inverse * inverse * inverse)


# --- end of formula ---


@kernel
def _width(near: Near) -> int:
    """The length of a buffer for a cluster and its neighbours: whole registers, so that rows are aligned alike."""
    return (CLUSTER + near.widest + LANES) // LANES * LANES


@kernel
def _gather(extended: np.ndarray, own_low: int, own_high: int, entries: np.ndarray, low: int, high: int, near: np.ndarray) -> int:
    """Copy a cluster's own atoms and its neighbours low .. high - 1 into `near`, filled up beyond; its new length."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    x, y, z = extended[0], extended[1], extended[2]
    own = own_high - own_low
    for k in range(own):
        near_x[k], near_y[k], near_z[k] = x[own_low + k], y[own_low + k], z[own_low + k]
    for k in range(high - low):
        j = entries[low + k]
        near_x[own + k], near_y[own + k], near_z[own + k] = x[j], y[j], z[j]
    count = own + high - low
    padded = (count + LANES - 1) // LANES * LANES
    for k in range(count, padded):
        near_x[k], near_y[k], near_z[k] = BEYOND, BEYOND, BEYOND
    return padded


@kernel
def _pull_two(near: np.ndarray, a: int, count: int, cutoff2: float, c: tuple[float, ...], f: np.ndarray, i: int) -> None:
    """The forces on atoms a and a + 1 of the buffer, by all others in it and by each other, into f[:, i] and f[:, i + 1].

    Both are moved out of the buffer while the others are summed, so that the loop needs no test for an atom itself.
    """
    near_x, near_y, near_z = near[0], near[1], near[2]
    b = a + 1
    xa, ya, za = near_x[a], near_y[a], near_z[a]
    xb, yb, zb = near_x[b], near_y[b], near_z[b]
    near_x[a] = near_x[b] = BEYOND
    dx, dy, dz = xa - xb, ya - yb, za - zb
    r2 = dx * dx + dy * dy + dz * dz
    pull = 0.0 if r2 > cutoff2 else pair_force(r2, 1.0 / r2, c)
    fxa, fya, fza = pull * dx, pull * dy, pull * dz
    fxb, fyb, fzb = -fxa, -fya, -fza
    for k in range(count):
        xk, yk, zk = near_x[k], near_y[k], near_z[k]
        dxa, dya, dza = xa - xk, ya - yk, za - zk
        dxb, dyb, dzb = xb - xk, yb - yk, zb - zk
        ra = dxa * dxa + dya * dya + dza * dza
        rb = dxb * dxb + dyb * dyb + dzb * dzb
        both = 1.0 / (ra * rb)
        pull_a = pair_force(ra, rb * both, c)
        pull_b = pair_force(rb, ra * both, c)
        pull_a = 0.0 if ra > cutoff2 else pull_a
        pull_b = 0.0 if rb > cutoff2 else pull_b
        fxa += pull_a * dxa
        fya += pull_a * dya
        fza += pull_a * dza
        fxb += pull_b * dxb
        fyb += pull_b * dyb
        fzb += pull_b * dzb
    near_x[a], near_x[b] = xa, xb
    f[0, i], f[1, i], f[2, i] = fxa, fya, fza
    f[0, i + 1], f[1, i + 1], f[2, i + 1] = fxb, fyb, fzb


@kernel
def _pull_one(near: np.ndarray, a: int, count: int, cutoff2: float, c: tuple[float, ...], f: np.ndarray, i: int) -> None:
    """The force on atom a of the buffer by all others in it, into f[:, i]."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    x, y, z = near_x[a], near_y[a], near_z[a]
    near_x[a] = BEYOND
    fx = fy = fz = 0.0
    for k in range(count):
        dx, dy, dz = x - near_x[k], y - near_y[k], z - near_z[k]
        r2 = dx * dx + dy * dy + dz * dz
        pull = pair_force(r2, 1.0 / r2, c)
        pull = 0.0 if r2 > cutoff2 else pull
        fx += pull * dx
        fy += pull * dy
        fz += pull * dz
    near_x[a] = x
    f[0, i], f[1, i], f[2, i] = fx, fy, fz


@kernel
def _forces_on(
    low: int, high: int, extended: np.ndarray, first: np.ndarray, near: Near, cutoff: float, parameters: np.ndarray, f: np.ndarray
) -> None:
    """The forces on the atoms of clusters low .. high - 1, into f [3, atoms]."""
    c = coefficients(parameters)
    buffer = np.empty((3, _width(near)))
    for cluster in range(low, high):
        begin, end = first[cluster], first[cluster + 1]
        count = _gather(extended, begin, end, near.entries, near.start[cluster], near.stop[cluster], buffer)
        for i in range(begin, end - 1, 2):
            _pull_two(buffer, i - begin, count, cutoff * cutoff, c, f, i)
        if (end - begin) % 2 == 1:
            _pull_one(buffer, end - 1 - begin, count, cutoff * cutoff, c, f, end - 1)


@threaded_kernel
def forces(extended: np.ndarray, first: np.ndarray, near: Near, cutoff: float, parameters: np.ndarray, f: np.ndarray) -> None:
    """The forces on all atoms, into f [3, atoms], by as many threads as the list was made for."""
    parts = near.parts
    if parts.size == 2:
        _forces_on(0, parts[1], extended, first, near, cutoff, parameters, f)
    else:
        for part in prange(parts.size - 1):
            _forces_on(parts[part], parts[part + 1], extended, first, near, cutoff, parameters, f)


@kernel
def _sum_one(near: np.ndarray, a: int, count: int, cutoff2: float, c: tuple[float, ...]) -> tuple[float, float, float]:
    """Energy, virial and number of the pairs of atom a of the buffer with all others in it."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    x, y, z = near_x[a], near_y[a], near_z[a]
    near_x[a] = BEYOND
    energy = virial = pairs = 0.0
    for k in range(count):
        dx, dy, dz = x - near_x[k], y - near_y[k], z - near_z[k]
        r2 = dx * dx + dy * dy + dz * dz
        inside = 0.0 if r2 > cutoff2 else 1.0
        r2 = cutoff2 if r2 > cutoff2 else r2  # where any potential is finite
        inverse = 1.0 / r2
        energy += inside * pair_energy(r2, inverse, c)
        virial += inside * pair_force(r2, inverse, c) * r2
        pairs += inside
    near_x[a] = x
    return energy, virial, pairs


@kernel
def _sums_of(
    low: int, high: int, extended: np.ndarray, first: np.ndarray, near: Near, cutoff: float, parameters: np.ndarray,
    found: np.ndarray,
) -> None:  # fmt: skip
    """Energy, virial and number of the pairs of clusters low .. high - 1, into found [3, clusters]."""
    c = coefficients(parameters)
    buffer = np.empty((3, _width(near)))
    for cluster in range(low, high):
        begin, end = first[cluster], first[cluster + 1]
        count = _gather(extended, begin, end, near.entries, near.start[cluster], near.stop[cluster], buffer)
        energy = virial = pairs = 0.0
        for a in range(end - begin):
            u, w, n = _sum_one(buffer, a, count, cutoff * cutoff, c)
            energy += u
            virial += w
            pairs += n
        found[0, cluster], found[1, cluster], found[2, cluster] = energy, virial, pairs


@threaded_kernel
def _sums_by_cluster(
    extended: np.ndarray, first: np.ndarray, near: Near, cutoff: float, parameters: np.ndarray, found: np.ndarray
) -> None:
    """`_sums_of` by as many threads as the list was made for."""
    parts = near.parts
    if parts.size == 2:
        _sums_of(0, parts[1], extended, first, near, cutoff, parameters, found)
    else:
        for part in prange(parts.size - 1):
            _sums_of(parts[part], parts[part + 1], extended, first, near, cutoff, parameters, found)


@kernel
def sums(
    extended: np.ndarray, first: np.ndarray, near: Near, cutoff: float, parameters: np.ndarray
) -> tuple[float, float, float]:
    """Energy (not shifted), virial and number of all pairs within the cutoff; each is met from both sides."""
    found = np.empty((3, near.start.size))
    _sums_by_cluster(extended, first, near, cutoff, parameters, found)
    return 0.5 * found[0].sum(), 0.5 * found[1].sum(), 0.5 * found[2].sum()


@kernel
def _rebuild(
    x: np.ndarray, v: np.ndarray, names: np.ndarray, box: np.ndarray, reach: float, threads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Clusters, np.ndarray, Near]:
    """Wrap and sort the atoms: positions, velocities and names in the new order, clusters, extended positions, near clusters."""
    wrap(x, box)
    order, first = sort_in_space(x, box)
    sorted_x, sorted_v, sorted_names = np.empty_like(x), np.empty_like(v), np.empty_like(names)
    for i in range(order.size):
        j = order[i]
        sorted_names[i] = names[j]
        for d in range(3):
            sorted_x[d, i] = x[d, j]
            sorted_v[d, i] = v[d, j]
    clusters = add_images(sorted_x, box, first, reach)
    extended = extended_positions(sorted_x, clusters)
    return sorted_x, sorted_v, sorted_names, clusters, extended, near_clusters(extended, clusters, reach, threads)


@kernel
def evaluate(
    positions: np.ndarray, box: np.ndarray, cutoff: float, parameters: np.ndarray, threads: int
) -> tuple[np.ndarray, float, float, float]:
    """Forces [atoms, 3], energy (not shifted), virial and number of pairs of `positions` [atoms, 3]."""
    x = positions.T.copy()
    names = np.arange(x.shape[1])
    x, _, names, clusters, extended, candidates = _rebuild(x, x, names, box, cutoff, threads)
    near = near_atoms(extended, clusters, candidates, cutoff)
    f = np.empty_like(x)
    forces(extended, clusters.first, near, cutoff, parameters, f)
    energy, virial, pairs = sums(extended, clusters.first, near, cutoff, parameters)
    return _by_name(f, names), energy, virial, pairs


@kernel
def _by_name(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Values [3, atoms] in sorted order as [atoms, 3] in the order of the atoms' names."""
    result = np.empty((names.size, 3))
    for i in range(names.size):
        for d in range(3):
            result[names[i], d] = values[d, i]
    return result


@kernel
def _record(v: np.ndarray, totals: tuple[float, float, float], heat: float, row: np.ndarray) -> None:
    """Fill one row of the samples that `advance` returns."""
    row[0], row[1], row[2] = totals
    row[3], row[4] = kinetic_energy(v), heat
    for d in range(3):
        row[5 + d] = v[d].sum()


@kernel
def advance(
    positions: np.ndarray, velocities: np.ndarray, box: np.ndarray, cutoff: float, skins: tuple[float, float],
    parameters: np.ndarray, dt: float, bath: int, decay: float, kT: float, freedom: float, noise: np.ndarray, chi2: np.ndarray,
    stride: int, samples: np.ndarray, threads: int,
) -> tuple[np.ndarray, np.ndarray, int, int]:  # fmt: skip
    """Advance by ``len(samples) * stride`` steps, in one call.

    positions, velocities: [atoms, 3]; box [3]. skins: of the list of clusters and of that of atoms, the first wider.
    noise, chi2: the bath's random numbers, one row a step (`heat_bath`). samples [samples, 8] is filled with energy (not
    shifted), virial, pairs, kinetic energy, heat taken up since the start, momentum [3]. Returns positions and
    velocities, and the step and the atom where the run exploded, or -1, -1. The bits are the same for any number of threads.
    """
    wide, narrow = skins
    x, v, names, clusters, extended, candidates = _rebuild(
        positions.T.copy(), velocities.T.copy(), np.arange(positions.shape[0]), box, cutoff + wide, threads
    )
    near = near_atoms(extended, clusters, candidates, cutoff + narrow)
    sorted_at, listed_at = x.copy(), x.copy()
    f = np.empty_like(x)
    forces(extended, clusters.first, near, cutoff, parameters, f)
    heat, step = 0.0, 0
    for sample in range(samples.shape[0]):
        for _ in range(stride):
            kick_and_drift(x, v, f, dt)
            heat += heat_bath(v, names, bath, decay, kT, freedom, noise, chi2, step)
            drift(x, v, 0.5 * dt)
            if moved(x, listed_at, 0.5 * narrow) == 0:
                extend(x, clusters, extended)
            else:
                bad = runaway(x, v, f, dt)
                if bad >= 0:
                    return positions, velocities, step, names[bad]
                if moved(x, sorted_at, 0.5 * (wide - narrow)) == 0:
                    extend(x, clusters, extended)
                else:
                    x, v, names, clusters, extended, candidates = _rebuild(x, v, names, box, cutoff + wide, threads)
                    sorted_at = x.copy()
                near = near_atoms(extended, clusters, candidates, cutoff + narrow)
                listed_at = x.copy()
            forces(extended, clusters.first, near, cutoff, parameters, f)
            kick(v, f, 0.5 * dt)
            step += 1
        bad = runaway(x, v, f, dt)
        if bad >= 0:
            return positions, velocities, step, names[bad]
        _record(v, sums(extended, clusters.first, near, cutoff, parameters), heat, samples[sample])
    return _by_name(x, names), _by_name(v, names), -1, -1
