"""The template of every pair kernel. `pairs.py` replaces the part between the marks by a potential's own formula.

As it stands it is the kernel of 1/r^12, so that it can be read, linted and run like any other module.

For each cluster the positions of its neighbours are gathered once into a contiguous buffer, which is filled up with
atoms far away to a whole number of SIMD registers. Then a loop without branches runs over it, two atoms of the cluster
at a time, so that one division serves two pairs: 1/a = b/(ab), 1/b = a/(ab).
"""

from __future__ import annotations

import numba
import numpy as np

from manybody.numerics.integrators import drift, heat_bath, kick, kick_and_drift, runaway
from manybody.numerics.jit import kernel, parallel_kernel
from manybody.numerics.neighbours import ClusterList, build_list, extend, moved, sort_in_space, wrap

FAR = 1e9  # beyond any cutoff, and its square still far from overflow
LANES = 32  # a multiple of what the compiler unrolls a SIMD loop to; the rest would run one by one


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
def _gather(extended: np.ndarray, entries: np.ndarray, low: int, high: int, near: np.ndarray) -> int:
    """Copy the positions of neighbours low .. high - 1 into `near` and fill it up with far atoms; its new length."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    x, y, z = extended[0], extended[1], extended[2]
    count = high - low
    for k in range(count):
        j = entries[low + k]
        near_x[k], near_y[k], near_z[k] = x[j], y[j], z[j]
    padded = (count + LANES - 1) // LANES * LANES
    for k in range(count, padded):
        near_x[k], near_y[k], near_z[k] = FAR, FAR, FAR
    return padded


@kernel
def _pull_one(
    x: float, y: float, z: float, near: np.ndarray, count: int, cutoff2: float, c: tuple[float, ...]
) -> tuple[float, float, float]:
    """The force of `count` neighbours on one atom."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    fx = fy = fz = 0.0
    for k in range(count):
        dx, dy, dz = x - near_x[k], y - near_y[k], z - near_z[k]
        r2 = dx * dx + dy * dy + dz * dz
        pull = pair_force(r2, 1.0 / r2, c)
        pull = 0.0 if r2 > cutoff2 else pull
        fx += pull * dx
        fy += pull * dy
        fz += pull * dz
    return fx, fy, fz


@kernel
def _pull_own(
    extended: np.ndarray, i: int, low: int, high: int, cutoff2: float, c: tuple[float, ...]
) -> tuple[float, float, float]:
    """The force on atom i of the other atoms low .. high - 1 of its own cluster."""
    x, y, z = extended[0], extended[1], extended[2]
    fx = fy = fz = 0.0
    for k in range(low, high):
        dx, dy, dz = x[i] - x[k], y[i] - y[k], z[i] - z[k]
        r2 = dx * dx + dy * dy + dz * dz + (FAR if k == i else 0.0)
        pull = pair_force(r2, 1.0 / r2, c)
        pull = 0.0 if r2 > cutoff2 else pull
        fx += pull * dx
        fy += pull * dy
        fz += pull * dz
    return fx, fy, fz


@kernel
def _cluster_forces(
    extended: np.ndarray, low: int, high: int, near: np.ndarray, count: int, cutoff2: float, c: tuple[float, ...], f: np.ndarray
) -> None:
    """The forces on the atoms low .. high - 1 of one cluster, by `count` gathered neighbours and by each other."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    i = low
    while i + 1 < high:
        xa, ya, za = extended[0, i], extended[1, i], extended[2, i]
        xb, yb, zb = extended[0, i + 1], extended[1, i + 1], extended[2, i + 1]
        fxa = fya = fza = fxb = fyb = fzb = 0.0
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
        f[0, i], f[1, i], f[2, i] = fxa, fya, fza
        f[0, i + 1], f[1, i + 1], f[2, i + 1] = fxb, fyb, fzb
        i += 2
    if i < high:
        f[0, i], f[1, i], f[2, i] = _pull_one(extended[0, i], extended[1, i], extended[2, i], near, count, cutoff2, c)
    for i in range(low, high):
        fx, fy, fz = _pull_own(extended, i, low, high, cutoff2, c)
        f[0, i] += fx
        f[1, i] += fy
        f[2, i] += fz


@kernel
def _cluster_sums(
    extended: np.ndarray, low: int, high: int, near: np.ndarray, count: int, cutoff2: float, c: tuple[float, ...]
) -> tuple[float, float, float]:
    """Energy, virial and number of pairs of one cluster's atoms, each pair counted from both sides."""
    near_x, near_y, near_z = near[0], near[1], near[2]
    energy = virial = pairs = 0.0
    for i in range(low, high):
        x, y, z = extended[0, i], extended[1, i], extended[2, i]
        for k in range(count):
            dx, dy, dz = x - near_x[k], y - near_y[k], z - near_z[k]
            r2 = dx * dx + dy * dy + dz * dz
            inverse = 1.0 / r2
            inside = 0.0 if r2 > cutoff2 else 1.0
            energy += inside * pair_energy(r2, inverse, c)
            virial += inside * pair_force(r2, inverse, c) * r2
            pairs += inside
        for k in range(low, high):
            dx, dy, dz = x - extended[0, k], y - extended[1, k], z - extended[2, k]
            r2 = dx * dx + dy * dy + dz * dz + (FAR if k == i else 0.0)
            inverse = 1.0 / r2
            inside = 0.0 if r2 > cutoff2 else 1.0
            energy += inside * pair_energy(r2, inverse, c)
            virial += inside * pair_force(r2, inverse, c) * r2
            pairs += inside
    return energy, virial, pairs


@kernel
def forces(extended: np.ndarray, near: ClusterList, cutoff: float, parameters: np.ndarray, f: np.ndarray) -> None:
    """The forces on all atoms, into f [3, atoms]."""
    c = coefficients(parameters)
    buffer = np.empty((3, near.widest + LANES))
    for cluster in range(near.first.size - 1):
        count = _gather(extended, near.entries, near.start[cluster], near.start[cluster + 1], buffer)
        _cluster_forces(extended, near.first[cluster], near.first[cluster + 1], buffer, count, cutoff * cutoff, c, f)


@parallel_kernel
def forces_threaded(extended: np.ndarray, near: ClusterList, cutoff: float, parameters: np.ndarray, f: np.ndarray) -> None:
    """As `forces`, the clusters spread over threads. Every force is summed by one thread, so the bits do not depend on them."""
    clusters = near.first.size - 1
    parts = min(64, clusters)
    for part in numba.prange(parts):
        c = coefficients(parameters)
        buffer = np.empty((3, near.widest + LANES))
        for cluster in range(clusters * part // parts, clusters * (part + 1) // parts):
            count = _gather(extended, near.entries, near.start[cluster], near.start[cluster + 1], buffer)
            _cluster_forces(extended, near.first[cluster], near.first[cluster + 1], buffer, count, cutoff * cutoff, c, f)


@kernel
def sums(extended: np.ndarray, near: ClusterList, cutoff: float, parameters: np.ndarray) -> tuple[float, float, float]:
    """Energy (not shifted), virial and number of all pairs within the cutoff."""
    c = coefficients(parameters)
    buffer = np.empty((3, near.widest + LANES))
    energy = virial = pairs = 0.0
    for cluster in range(near.first.size - 1):
        count = _gather(extended, near.entries, near.start[cluster], near.start[cluster + 1], buffer)
        part = _cluster_sums(extended, near.first[cluster], near.first[cluster + 1], buffer, count, cutoff * cutoff, c)
        energy += part[0]
        virial += part[1]
        pairs += part[2]
    return 0.5 * energy, 0.5 * virial, 0.5 * pairs


@kernel
def _rebuild(
    x: np.ndarray, v: np.ndarray, names: np.ndarray, box: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, ClusterList, np.ndarray]:
    """Wrap and sort the atoms and build their list: positions, velocities and names in the new order, list, extended."""
    wrap(x, box)
    order, first = sort_in_space(x, box)
    sorted_x, sorted_v, sorted_names = np.empty_like(x), np.empty_like(v), np.empty_like(names)
    for i in range(order.size):
        j = order[i]
        sorted_names[i] = names[j]
        for d in range(3):
            sorted_x[d, i] = x[d, j]
            sorted_v[d, i] = v[d, j]
    near, extended = build_list(sorted_x, box, first, reach)
    return sorted_x, sorted_v, sorted_names, near, extended


@kernel
def evaluate(
    positions: np.ndarray, box: np.ndarray, cutoff: float, parameters: np.ndarray
) -> tuple[np.ndarray, float, float, float]:
    """Forces [atoms, 3], energy (not shifted), virial and number of pairs of `positions` [atoms, 3]."""
    x = positions.T.copy()
    names = np.arange(x.shape[1])
    x, _, names, near, extended = _rebuild(x, x, names, box, cutoff)
    f = np.empty_like(x)
    forces(extended, near, cutoff, parameters, f)
    energy, virial, pairs = sums(extended, near, cutoff, parameters)
    result = np.empty_like(positions)
    for i in range(names.size):
        for d in range(3):
            result[names[i], d] = f[d, i]
    return result, energy, virial, pairs


@kernel
def advance(
    positions: np.ndarray, velocities: np.ndarray, box: np.ndarray, cutoff: float, skin: float, parameters: np.ndarray,
    dt: float, bath: int, decay: float, kT: float, freedom: float, noise: np.ndarray, chi2: np.ndarray,
    stride: int, samples: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int, int]:  # fmt: skip
    """Advance by ``len(samples) * stride`` steps, in one call.

    positions, velocities: [atoms, 3]; box [3]. noise, chi2: the bath's random numbers, one row a step (`heat_bath`).
    samples [samples, 8] is filled with energy (not shifted), virial, pairs, kinetic energy, heat taken up since the
    start, momentum [3]. Returns positions and velocities, and the step and the atom where the run exploded, or -1, -1.
    """
    names = np.arange(positions.shape[0])
    x, v, names, near, extended = _rebuild(positions.T.copy(), velocities.T.copy(), names, box, cutoff + skin)
    reference = x.copy()
    f = np.empty_like(x)
    forces(extended, near, cutoff, parameters, f)
    heat = 0.0
    step = 0
    bad = runaway(x, v, f, dt)
    for sample in range(samples.shape[0]):
        for _ in range(stride):
            if bad >= 0:
                return positions, velocities, step, names[bad]
            kick_and_drift(x, v, f, dt)
            heat += heat_bath(v, names, bath, decay, kT, freedom, noise, chi2, step)
            drift(x, v, 0.5 * dt)
            if moved(x, reference, 0.5 * skin) > 0:
                bad = runaway(x, v, f, dt)
                if bad >= 0:
                    return positions, velocities, step, names[bad]
                x, v, names, near, extended = _rebuild(x, v, names, box, cutoff + skin)
                reference = x.copy()
            else:
                extend(x, near.source, near.shift, extended)
            forces(extended, near, cutoff, parameters, f)
            kick(v, f, 0.5 * dt)
            step += 1
        bad = runaway(x, v, f, dt)
        row = samples[sample]
        row[0], row[1], row[2] = sums(extended, near, cutoff, parameters)
        row[3:] = 0.0
        for d in range(3):
            for i in range(names.size):
                row[3] += 0.5 * v[d, i] * v[d, i]
                row[5 + d] += v[d, i]
        row[4] = heat
    if bad >= 0:
        return positions, velocities, step, names[bad]
    last_x, last_v = np.empty_like(positions), np.empty_like(velocities)
    for i in range(names.size):
        for d in range(3):
            last_x[names[i], d] = x[d, i]
            last_v[names[i], d] = v[d, i]
    return last_x, last_v, -1, -1
