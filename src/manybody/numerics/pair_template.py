"""The template of every pair kernel. `pairs.py` replaces the part between the marks by a potential's own formula.

As it stands it is the kernel of 1/r^12, so that it can be read, linted and run like any other module.

For each cluster the positions of its neighbours are gathered once into a contiguous buffer, which is filled up with
atoms far away to a whole number of SIMD registers. Then a loop without branches runs over it, two atoms of the cluster
at a time, so that one division serves two pairs: 1/a = b/(ab), 1/b = a/(ab).

In mixed precision that loop runs in single: positions are taken relative to the cluster's first atom, in double, before
they are rounded, so rounding does not depend on where in the box a cluster is. At most `BLOCK` pairs are summed in single.
Positions, velocities, forces on atoms, energies and virials are double throughout.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from manybody.numerics.clusters import CLUSTER, Clusters, add_images, extend, extended_positions, sort_in_space, wrap
from manybody.numerics.integrators import drift, heat_bath, kick, kick_and_drift, kinetic_energy, runaway
from manybody.numerics.jit import kernel, threaded_kernel
from manybody.numerics.neighbours import Members, Near, Sorted, moved, near_clusters, near_members
from manybody.numerics.registers import copy_chosen, count_bits


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


# --- precision ---
REAL = np.float64  # what pairs are computed in
LANES = 8  # of these in the widest SIMD register; what is left over would run one by one
BLOCK = 1 << 20  # pairs summed in it before the sum is added to a double: a multiple of LANES
LOCAL = False  # whether positions are relative to the cluster


@kernel
def near_coefficients(parameters: np.ndarray) -> tuple[float, ...]:
    """`coefficients` as `near_force` takes them."""
    return coefficients(parameters)


@kernel
def near_force(r2: float, inverse: float, c: tuple[float, ...]) -> float:
    """`pair_force` in the precision of pairs."""
    return pair_force(r2, inverse, c)


# --- end of precision ---


@kernel
def _width(near: Members) -> int:
    """The length of a buffer for a cluster and its neighbours: whole registers, so that rows are aligned alike, and one more."""
    return (CLUSTER + near.widest + 2 * LANES) // LANES * LANES + LANES


@kernel
def _gather(
    extended: np.ndarray, begin: int, end: int, near: Members, low: int, high: int, cutoff: float, buffer: np.ndarray
) -> tuple[int, float]:
    """Copy atoms begin .. end - 1 and their neighbours, `near` low .. high - 1, into `buffer` [3, _width].

    Returns its new length, filled up to whole registers, and an x beyond the cutoff of all the cluster's atoms: not so far
    that powers of its distance would vanish in single precision, which costs time.
    """
    near_x, near_y, near_z = buffer[0], buffer[1], buffer[2]
    x, y, z = extended[0], extended[1], extended[2]
    ox, oy, oz = (x[begin], y[begin], z[begin]) if LOCAL else (0.0, 0.0, 0.0)
    count = end - begin
    own = (1 << count) - 1
    copy_chosen(x, begin, own, ox, near_x, 0)
    copy_chosen(y, begin, own, oy, near_y, 0)
    copy_chosen(z, begin, own, oz, near_z, 0)
    beyond = near_x[0]
    for k in range(1, count):
        beyond = near_x[k] if near_x[k] > beyond else beyond
    beyond += REAL(2.0 * cutoff)
    for m in range(low, high):
        start, bits = near.entries[m], near.bits[m]
        copy_chosen(x, start, bits, ox, near_x, count)
        copy_chosen(y, start, bits, oy, near_y, count)
        copy_chosen(z, start, bits, oz, near_z, count)
        count += count_bits(bits)
    padded = (count + LANES - 1) // LANES * LANES
    for k in range(count, padded):
        near_x[k], near_y[k], near_z[k] = beyond, near_y[0], near_z[0]
    return padded, beyond


@kernel
def _pull_two(
    near: np.ndarray, a: int, count: int, beyond: float, cutoff2: float, c: tuple[float, ...], f: np.ndarray, i: int
) -> None:
    """The forces on atoms a and a + 1 of the buffer, by all others in it and by each other, into f[:, i] and f[:, i + 1].

    Both are moved out of the buffer while the others are summed, so that the loop needs no test for an atom itself.
    """
    near_x, near_y, near_z = near[0], near[1], near[2]
    b = a + 1
    xa, ya, za = near_x[a], near_y[a], near_z[a]
    xb, yb, zb = near_x[b], near_y[b], near_z[b]
    near_x[a] = near_x[b] = beyond
    dx, dy, dz = xa - xb, ya - yb, za - zb
    r2 = dx * dx + dy * dy + dz * dz
    pull = REAL(0.0) if r2 > cutoff2 else near_force(r2, REAL(1.0) / r2, c)
    f[0, i], f[1, i], f[2, i] = pull * dx, pull * dy, pull * dz
    f[0, i + 1], f[1, i + 1], f[2, i + 1] = -pull * dx, -pull * dy, -pull * dz
    for low in range(0, count, BLOCK):
        high = min(count, low + BLOCK)
        some_x, some_y, some_z = near_x[low:high], near_y[low:high], near_z[low:high]
        fxa = fya = fza = fxb = fyb = fzb = REAL(0.0)
        for k in range(some_x.size):
            xk, yk, zk = some_x[k], some_y[k], some_z[k]
            dxa, dya, dza = xa - xk, ya - yk, za - zk
            dxb, dyb, dzb = xb - xk, yb - yk, zb - zk
            ra = dxa * dxa + dya * dya + dza * dza
            rb = dxb * dxb + dyb * dyb + dzb * dzb
            both = REAL(1.0) / (ra * rb)
            pull_a = near_force(ra, rb * both, c)
            pull_b = near_force(rb, ra * both, c)
            pull_a = REAL(0.0) if ra > cutoff2 else pull_a
            pull_b = REAL(0.0) if rb > cutoff2 else pull_b
            fxa += pull_a * dxa
            fya += pull_a * dya
            fza += pull_a * dza
            fxb += pull_b * dxb
            fyb += pull_b * dyb
            fzb += pull_b * dzb
        f[0, i] += fxa
        f[1, i] += fya
        f[2, i] += fza
        f[0, i + 1] += fxb
        f[1, i + 1] += fyb
        f[2, i + 1] += fzb
    near_x[a], near_x[b] = xa, xb


@kernel
def _pull_one(
    near: np.ndarray, a: int, count: int, beyond: float, cutoff2: float, c: tuple[float, ...], f: np.ndarray, i: int
) -> None:
    """The force on atom a of the buffer by all others in it, into f[:, i]."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    x, y, z = near_x[a], near_y[a], near_z[a]
    near_x[a] = beyond
    f[0, i] = f[1, i] = f[2, i] = 0.0
    for low in range(0, count, BLOCK):
        high = min(count, low + BLOCK)
        some_x, some_y, some_z = near_x[low:high], near_y[low:high], near_z[low:high]
        fx = fy = fz = REAL(0.0)
        for k in range(some_x.size):
            dx, dy, dz = x - some_x[k], y - some_y[k], z - some_z[k]
            r2 = dx * dx + dy * dy + dz * dz
            pull = near_force(r2, REAL(1.0) / r2, c)
            pull = REAL(0.0) if r2 > cutoff2 else pull
            fx += pull * dx
            fy += pull * dy
            fz += pull * dz
        f[0, i] += fx
        f[1, i] += fy
        f[2, i] += fz
    near_x[a] = x


@kernel
def _forces_on(
    low: int, high: int, extended: np.ndarray, first: np.ndarray, near: Members, cutoff: float, parameters: np.ndarray,
    f: np.ndarray,
) -> None:  # fmt: skip
    """The forces on the atoms of clusters low .. high - 1, into f [3, atoms]."""
    c, cutoff2 = near_coefficients(parameters), REAL(cutoff * cutoff)
    buffer = np.empty((3, _width(near)), REAL)
    for cluster in range(low, high):
        begin, end = first[cluster], first[cluster + 1]
        count, beyond = _gather(extended, begin, end, near, near.start[cluster], near.stop[cluster], cutoff, buffer)
        for i in range(begin, end - 1, 2):
            _pull_two(buffer, i - begin, count, beyond, cutoff2, c, f, i)
        if (end - begin) % 2 == 1:
            _pull_one(buffer, end - 1 - begin, count, beyond, cutoff2, c, f, end - 1)


@threaded_kernel
def forces(extended: np.ndarray, first: np.ndarray, near: Members, cutoff: float, parameters: np.ndarray, f: np.ndarray) -> None:
    """The forces on all atoms, into f [3, atoms], by as many threads as the list was made for."""
    parts = near.parts
    if parts.size == 2:
        _forces_on(0, parts[1], extended, first, near, cutoff, parameters, f)
    else:
        for part in prange(parts.size - 1):
            _forces_on(parts[part], parts[part + 1], extended, first, near, cutoff, parameters, f)


@kernel
def _sum_one(
    near: np.ndarray, a: int, count: int, beyond: float, cutoff2: float, c: tuple[float, ...]
) -> tuple[float, float, float]:
    """Energy, virial and number of the pairs of atom a of the buffer with all others in it."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    x, y, z = near_x[a], near_y[a], near_z[a]
    near_x[a] = beyond
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
    low: int, high: int, extended: np.ndarray, first: np.ndarray, near: Members, cutoff: float, parameters: np.ndarray,
    found: np.ndarray,
) -> None:  # fmt: skip
    """Energy, virial and number of the pairs of clusters low .. high - 1, into found [3, clusters]."""
    c = coefficients(parameters)
    buffer = np.empty((3, _width(near)))
    for cluster in range(low, high):
        begin, end = first[cluster], first[cluster + 1]
        count, beyond = _gather(extended, begin, end, near, near.start[cluster], near.stop[cluster], cutoff, buffer)
        energy = virial = pairs = 0.0
        for a in range(end - begin):
            u, w, n = _sum_one(buffer, a, count, beyond, cutoff * cutoff, c)
            energy += u
            virial += w
            pairs += n
        found[0, cluster], found[1, cluster], found[2, cluster] = energy, virial, pairs


@threaded_kernel
def _sums_by_cluster(
    extended: np.ndarray, first: np.ndarray, near: Members, cutoff: float, parameters: np.ndarray, found: np.ndarray
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
    extended: np.ndarray, clusters: Clusters, near: Members, cutoff: float, parameters: np.ndarray
) -> tuple[float, float, float]:
    """Energy (not shifted), virial and number of all pairs within the cutoff; each is met from both sides."""
    found = np.empty((3, near.start.size))
    _sums_by_cluster(extended, clusters.first, near, cutoff, parameters, found)
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
def by_name(values: np.ndarray, names: np.ndarray) -> np.ndarray:
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
def start(
    positions: np.ndarray, velocities: np.ndarray, box: np.ndarray, cutoff: float, skins: tuple[float, float],
    parameters: np.ndarray, threads: int,
) -> Sorted:  # fmt: skip
    """What `advance` needs of atoms at `positions`, with `velocities` [atoms, 3], in a box [3].

    skins: how much further than the cutoff the lists of clusters and of atoms reach, the first at least as far.
    """
    wide, narrow = skins
    x, v, names, clusters, extended, candidates = _rebuild(
        positions.T.copy(), velocities.T.copy(), np.arange(positions.shape[0]), box, cutoff + wide, threads
    )
    near = near_members(extended, clusters, candidates, cutoff + narrow)
    f = np.empty_like(x)
    forces(extended, clusters.first, near, cutoff, parameters, f)
    return Sorted(x, v, f, names, clusters, extended, candidates, near, x.copy(), x.copy())


@kernel
def advance(
    atoms: Sorted, box: np.ndarray, cutoff: float, skins: tuple[float, float], parameters: np.ndarray, dt: float, bath: int,
    decay: float, kT: float, freedom: float, noise: np.ndarray, chi2: np.ndarray, stride: int, samples: np.ndarray, threads: int,
) -> tuple[Sorted, int, int]:  # fmt: skip
    """Advance by ``len(samples) * stride`` steps, in one call.

    atoms, box, cutoff, skins: as in `start`. noise, chi2: the bath's random numbers, one row a step (`heat_bath`). samples
    [samples, 8] is filled with energy (not shifted), virial, pairs, kinetic energy, heat taken up since the call began,
    momentum [3]; [samples, 0] records nothing. Returns the atoms, and the step and the atom where the run exploded, or -1, -1.
    The bits are the same for any number of threads, and for any number of calls.
    """
    x, v, f, names, clusters, extended, candidates, near, sorted_at, listed_at = atoms
    wide, narrow = skins
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
                    return atoms, step, names[bad]
                if moved(x, sorted_at, 0.5 * (wide - narrow)) == 0:
                    extend(x, clusters, extended)
                else:
                    x, v, names, clusters, extended, candidates = _rebuild(x, v, names, box, cutoff + wide, threads)
                    sorted_at = x.copy()
                near = near_members(extended, clusters, candidates, cutoff + narrow)
                listed_at = x.copy()
            forces(extended, clusters.first, near, cutoff, parameters, f)
            kick(v, f, 0.5 * dt)
            step += 1
        bad = runaway(x, v, f, dt)
        if bad >= 0:
            return atoms, step, names[bad]
        if samples.shape[1] > 0:
            _record(v, sums(extended, clusters, near, cutoff, parameters), heat, samples[sample])
    return Sorted(x, v, f, names, clusters, extended, candidates, near, sorted_at, listed_at), -1, -1
