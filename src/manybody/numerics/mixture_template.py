"""The template of every kernel of a mixture. `mixtures.py` replaces the part between the marks by what the system at hand is.

As it stands it is the kernel of 1/r^12 between two species, so that it can be read, linted and run like any other module.

Neighbours are sorted by species, as are the atoms of a cluster, and gathered into one buffer a species. So the parameters
and the cutoff are constants of the innermost loop, which is that of `pair_template.py`: no branches, two atoms at a time.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from manybody.numerics.bricks import sheared, shrinkage, strayed
from manybody.numerics.clusters import BEYOND, CLUSTER
from manybody.numerics.integrators import kick, runaway
from manybody.numerics.jit import kernel, threaded_kernel
from manybody.numerics.mixture_lists import Kinds, by_name, move_images, near_by_species, sort_and_list
from manybody.numerics.neighbours import Near
from manybody.numerics.sheared import isokinetic_kick, sheared_drift, strain_velocities

LANES = 8  # double-precision numbers in the widest SIMD register; what is left over would run one by one
PLAIN, SHIFTED, FORCE_SHIFTED, SWITCHED = 0, 1, 2, 3
SAMPLE = 19  # energy, pairs, virial xx yy zz xy xz yz, kinetic tensor likewise, heat, work, momentum


# --- formula ---
SPECIES, TREATMENT, COEFFICIENTS = 2, SHIFTED, 2
spread, shares = threaded_kernel, prange


@kernel
def coefficients(parameters: np.ndarray) -> tuple[float, ...]:
    """What depends on the parameters of a pair of species alone."""
    return (parameters[0], 12.0 * parameters[0])


@kernel
def loaded(row: np.ndarray) -> tuple[float, ...]:
    """The coefficients of a pair of species, from a row of their table."""
    return (row[0], row[1])


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
def tabulated(parameters: np.ndarray) -> np.ndarray:
    """The coefficients of all pairs of species, [species, species, coefficients]."""
    table = np.empty((SPECIES, SPECIES, COEFFICIENTS))
    for s in range(SPECIES):
        for t in range(SPECIES):
            found = coefficients(parameters[s, t])
            for n in range(COEFFICIENTS):
                table[s, t, n] = found[n]
    return table


@kernel
def cuts_of(table: np.ndarray, cutoffs: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """What cutting takes, [species, species, 6]: cutoff^2, u and -u' there, begin^2, 1 / (cutoff^2 - begin^2), cutoff."""
    cuts = np.zeros((SPECIES, SPECIES, 6))
    for s in range(SPECIES):
        for t in range(SPECIES):
            r2, c = cutoffs[s, t] * cutoffs[s, t], loaded(table[s, t])
            if TREATMENT != PLAIN and TREATMENT != SWITCHED:
                cuts[s, t, 1] = pair_energy(r2, 1.0 / r2, c)
            if TREATMENT == FORCE_SHIFTED:
                cuts[s, t, 2] = pair_force(r2, 1.0 / r2, c) * cutoffs[s, t]
            if TREATMENT == SWITCHED:
                cuts[s, t, 3] = begins[s, t] * begins[s, t]
                cuts[s, t, 4] = 1.0 / (r2 - cuts[s, t, 3])
            cuts[s, t, 0], cuts[s, t, 5] = r2, cutoffs[s, t]
    return cuts


@kernel
def cut_energy(r2: float, inverse: float, c: tuple[float, ...], cut: np.ndarray) -> float:
    """The energy of a pair within its cutoff; `cut` is its row of `cuts_of`."""
    energy = pair_energy(r2, inverse, c) - cut[1]
    if TREATMENT == FORCE_SHIFTED:
        energy += (math.sqrt(r2) - cut[5]) * cut[2]
    if TREATMENT == SWITCHED:
        t = max(0.0, (r2 - cut[3]) * cut[4])
        energy *= 1.0 - t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)
    return float(energy)


@kernel
def cut_force(r2: float, inverse: float, c: tuple[float, ...], cut: tuple[float, float, float, float]) -> float:
    """The force of a pair over its distance, within the cutoff; `cut` is cutoff^2, -u' there, begin^2 and the inverse width."""
    pull = pair_force(r2, inverse, c)
    if TREATMENT == FORCE_SHIFTED:
        pull -= cut[1] * math.sqrt(inverse)
    if TREATMENT == SWITCHED:
        t = (r2 - cut[2]) * cut[3]
        t = t if t > 0.0 else 0.0
        steep = 60.0 * t * t * (1.0 - t) * (1.0 - t) * cut[3]
        pull = pull * (1.0 - t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)) + pair_energy(r2, inverse, c) * steep
    return 0.0 if r2 > cut[0] else pull


@kernel
def _force_cut(cut: np.ndarray) -> tuple[float, float, float, float]:
    """What `cut_force` takes of a row of `cuts_of`."""
    return cut[0], cut[2], cut[3], cut[4]


# --- forces ----------------------------------------------------------------------------------------------------


@kernel
def _gather(
    extended: np.ndarray, entries: np.ndarray, own: np.ndarray, start: np.ndarray, near: np.ndarray, counts: np.ndarray
) -> None:
    """Copy a cluster's own atoms and its neighbours into near [species, 3, width], each species filled up beyond."""
    x, y, z = extended[0], extended[1], extended[2]
    for s in range(SPECIES):
        k = 0
        for i in range(own[s], own[s + 1]):
            near[s, 0, k], near[s, 1, k], near[s, 2, k] = x[i], y[i], z[i]
            k += 1
        for m in range(start[s], start[s + 1]):
            j = entries[m]
            near[s, 0, k], near[s, 1, k], near[s, 2, k] = x[j], y[j], z[j]
            k += 1
        padded = (k + LANES - 1) // LANES * LANES
        for m in range(k, padded):
            near[s, 0, m], near[s, 1, m], near[s, 2, m] = BEYOND, BEYOND, BEYOND
        counts[s] = padded


@kernel
def _pull_two(
    near: np.ndarray, counts: np.ndarray, a: tuple[int, int], b: tuple[int, int], table: np.ndarray, cuts: np.ndarray,
    f: np.ndarray, i: int,
) -> float:  # fmt: skip
    """The forces on two atoms of the buffer, given as (species, place), by all others and each other, into f[:, i], f[:, i + 1].

    Returns the sum of f_x r_y over the pairs of both. They are moved out of the buffer while the others are summed.
    """
    xa, ya, za = near[a[0], 0, a[1]], near[a[0], 1, a[1]], near[a[0], 2, a[1]]
    xb, yb, zb = near[b[0], 0, b[1]], near[b[0], 1, b[1]], near[b[0], 2, b[1]]
    near[a[0], 0, a[1]] = near[b[0], 0, b[1]] = BEYOND
    dx, dy, dz = xa - xb, ya - yb, za - zb
    r2 = dx * dx + dy * dy + dz * dz
    pull = cut_force(r2, 1.0 / r2, loaded(table[a[0], b[0]]), _force_cut(cuts[a[0], b[0]]))
    fxa, fya, fza = pull * dx, pull * dy, pull * dz
    fxb, fyb, fzb = -fxa, -fya, -fza
    shear = 2.0 * fxa * dy
    for s in range(SPECIES):
        ca, cb = loaded(table[a[0], s]), loaded(table[b[0], s])
        cut_a, cut_b = _force_cut(cuts[a[0], s]), _force_cut(cuts[b[0], s])
        for k in range(counts[s]):
            xk, yk, zk = near[s, 0, k], near[s, 1, k], near[s, 2, k]
            dxa, dya, dza = xa - xk, ya - yk, za - zk
            dxb, dyb, dzb = xb - xk, yb - yk, zb - zk
            ra = dxa * dxa + dya * dya + dza * dza
            rb = dxb * dxb + dyb * dyb + dzb * dzb
            both = 1.0 / (ra * rb)
            pull_a = cut_force(ra, rb * both, ca, cut_a)
            pull_b = cut_force(rb, ra * both, cb, cut_b)
            fxa += pull_a * dxa
            fya += pull_a * dya
            fza += pull_a * dza
            shear += pull_a * dxa * dya + pull_b * dxb * dyb
            fxb += pull_b * dxb
            fyb += pull_b * dyb
            fzb += pull_b * dzb
    near[a[0], 0, a[1]], near[b[0], 0, b[1]] = xa, xb
    f[0, i], f[1, i], f[2, i] = fxa, fya, fza
    f[0, i + 1], f[1, i + 1], f[2, i + 1] = fxb, fyb, fzb
    return float(shear)


@kernel
def _pull_one(
    near: np.ndarray, counts: np.ndarray, a: tuple[int, int], table: np.ndarray, cuts: np.ndarray, f: np.ndarray, i: int
) -> float:
    """The force on one atom of the buffer by all others in it, into f[:, i]; returns the sum of f_x r_y over its pairs."""
    x, y, z = near[a[0], 0, a[1]], near[a[0], 1, a[1]], near[a[0], 2, a[1]]
    near[a[0], 0, a[1]] = BEYOND
    fx = fy = fz = shear = 0.0
    for s in range(SPECIES):
        c, cut = loaded(table[a[0], s]), _force_cut(cuts[a[0], s])
        for k in range(counts[s]):
            dx, dy, dz = x - near[s, 0, k], y - near[s, 1, k], z - near[s, 2, k]
            r2 = dx * dx + dy * dy + dz * dz
            pull = cut_force(r2, 1.0 / r2, c, cut)
            fx += pull * dx
            fy += pull * dy
            fz += pull * dz
            shear += pull * dx * dy
    near[a[0], 0, a[1]] = x
    f[0, i], f[1, i], f[2, i] = fx, fy, fz
    return float(shear)


@kernel
def _room(widest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A buffer for a cluster and at most `widest` neighbours of each species, its counts, and (species, place) of own atoms."""
    width = (CLUSTER + widest + LANES) // LANES * LANES
    return np.empty((SPECIES, 3, width)), np.empty(SPECIES, np.int64), np.empty((CLUSTER, 2), np.int64)


@kernel
def _place(own: np.ndarray, places: np.ndarray) -> None:
    """The species of a cluster's atoms and their places in the buffer of that species, into places [atoms, 2]."""
    for s in range(SPECIES):
        for k in range(own[s + 1] - own[s]):
            places[own[s] - own[0] + k, 0], places[own[s] - own[0] + k, 1] = s, k


@kernel
def _sum_one(
    near: np.ndarray, counts: np.ndarray, a: tuple[int, int], table: np.ndarray, cuts: np.ndarray, found: np.ndarray
) -> None:
    """Energy, number and virial tensor of the pairs of one atom with all others in the buffer, added to found [8]."""
    x, y, z = near[a[0], 0, a[1]], near[a[0], 1, a[1]], near[a[0], 2, a[1]]
    near[a[0], 0, a[1]] = BEYOND
    for s in range(SPECIES):
        c, cut, row = loaded(table[a[0], s]), _force_cut(cuts[a[0], s]), cuts[a[0], s]
        energy = pairs = xx = yy = zz = xy = xz = yz = 0.0
        for k in range(counts[s]):
            dx, dy, dz = x - near[s, 0, k], y - near[s, 1, k], z - near[s, 2, k]
            r2 = dx * dx + dy * dy + dz * dz
            inside = 0.0 if r2 > cut[0] else 1.0
            r2 = cut[0] if r2 > cut[0] else r2  # where any potential is finite
            inverse = 1.0 / r2
            energy += inside * cut_energy(r2, inverse, c, row)
            pull = inside * cut_force(r2, inverse, c, cut)
            pairs += inside
            xx += pull * dx * dx
            yy += pull * dy * dy
            zz += pull * dz * dz
            xy += pull * dx * dy
            xz += pull * dx * dz
            yz += pull * dy * dz
        found[0], found[1] = found[0] + energy, found[1] + pairs
        found[2] += xx
        found[3] += yy
        found[4] += zz
        found[5] += xy
        found[6] += xz
        found[7] += yz
    near[a[0], 0, a[1]] = x


@kernel
def _visit(
    low: int, high: int, extended: np.ndarray, near: Near, kinds: Kinds, table: np.ndarray, cuts: np.ndarray,
    f: np.ndarray, shear: np.ndarray, found: np.ndarray,
) -> None:  # fmt: skip
    """What `visit` does for clusters low .. high - 1."""
    buffer, counts, places = _room(near.widest)
    for cluster in range(low, high):
        own = kinds.own[cluster]
        _gather(extended, near.entries, own, kinds.start[cluster], buffer, counts)
        _place(own, places)
        begin, atoms, total = own[0], own[SPECIES] - own[0], 0.0
        if found.shape[0] > 0:
            for n in range(8):
                found[cluster, n] = 0.0
            for k in range(atoms):
                _sum_one(buffer, counts, (places[k, 0], places[k, 1]), table, cuts, found[cluster])
            continue
        for k in range(0, atoms - 1, 2):
            a, b = (places[k, 0], places[k, 1]), (places[k + 1, 0], places[k + 1, 1])
            total += _pull_two(buffer, counts, a, b, table, cuts, f, begin + k)
        if atoms % 2 == 1:
            last = atoms - 1
            total += _pull_one(buffer, counts, (places[last, 0], places[last, 1]), table, cuts, f, begin + last)
        shear[cluster] = total


@spread
def visit(
    extended: np.ndarray, near: Near, kinds: Kinds, table: np.ndarray, cuts: np.ndarray,
    f: np.ndarray, shear: np.ndarray, found: np.ndarray,
) -> None:  # fmt: skip
    """The sums over pairs of every cluster, by as many threads as the list was made for; each pair is met from both sides.

    Where found [clusters, 8] has rows they become energy, number and virial tensor (xx yy zz xy xz yz); where it has none,
    f [3, atoms] becomes the forces and shear [clusters] the sums of f_x r_y.
    """
    parts = near.parts
    if parts.size == 2:
        _visit(parts[0], parts[1], extended, near, kinds, table, cuts, f, shear, found)
    else:
        for part in shares(parts.size - 1):
            _visit(parts[part], parts[part + 1], extended, near, kinds, table, cuts, f, shear, found)


# --- what is called --------------------------------------------------------------------------------------------


@kernel
def _record(v: np.ndarray, found: np.ndarray, heat: float, work: float, row: np.ndarray) -> None:
    """One sample, row [SAMPLE], from what clusters found [clusters, 8]."""
    for n in range(SAMPLE):
        row[n] = 0.0
    for cluster in range(found.shape[0]):
        for n in range(8):
            row[n] += 0.5 * found[cluster, n]
    for i in range(v.shape[1]):
        row[8] += v[0, i] * v[0, i]
        row[9] += v[1, i] * v[1, i]
        row[10] += v[2, i] * v[2, i]
        row[11] += v[0, i] * v[1, i]
        row[12] += v[0, i] * v[2, i]
        row[13] += v[1, i] * v[2, i]
        for d in range(3):
            row[16 + d] += v[d, i]
    row[14], row[15] = heat, work


@kernel
def _half_kick(v: np.ndarray, f: np.ndarray, dt: float, isokinetic: bool) -> float:
    """Half a kick; returns the heat taken up."""
    if isokinetic:
        return isokinetic_kick(v, f, 0.5 * dt)
    kick(v, f, 0.5 * dt)
    return 0.0


@kernel
def advance(
    positions: np.ndarray, velocities: np.ndarray, species: np.ndarray, cell: np.ndarray,
    parameters: np.ndarray, cutoffs: np.ndarray, begins: np.ndarray, skins: tuple[float, float],
    dt: float, rate: float, isokinetic: bool, stride: int, samples: np.ndarray, threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int]:  # fmt: skip
    """Advance by ``len(samples) * stride`` steps of `manybody.numerics.sheared`, in one call; by none, samples are taken at once.

    positions, velocities [atoms, 3], relative to the flow; species [atoms]; a lower-triangular cell [3, 3]; parameters
    [species, species, parameters]; cutoffs and begins (of the switch) [species, species]. skins: of the list of clusters and
    of that of atoms, the first wider. samples [samples, SAMPLE]. Returns positions, velocities, forces, cell, and the step
    and the atom where the run exploded, or -1, -1. The bits are the same for any number of threads.
    """
    table = tabulated(parameters)
    cuts = cuts_of(table, cutoffs, begins)
    longest, outer, inner = cutoffs.max(), cutoffs.max() + skins[0], cutoffs.max() + skins[1]
    listed = sort_and_list(
        positions.T.copy(), velocities.T.copy(), np.arange(positions.shape[0]), species, SPECIES, cell, outer, threads
    )
    near, kinds = near_by_species(listed, SPECIES, inner)
    sorted_at, listed_at, since, at_list = listed.x.copy(), listed.x.copy(), 0.0, 0.0  # strains since the sort: now, at the list
    f, nothing, shear = np.empty_like(listed.x), np.empty((0, 8)), np.zeros(near.start.size)
    heat, work, half = 0.0, 0.0, 0.5 * dt * rate
    for step in range(-1, samples.shape[0] * stride):
        if step >= 0:
            heat += _half_kick(listed.v, f, dt, isokinetic)
            done, taken = strain_velocities(listed.v, half, isokinetic)
            work, heat = work + done - half * 0.5 * shear.sum(), heat + taken
            sheared_drift(listed.x, listed.v, rate, dt)
            since += rate * dt
            lasts = 0.5 * (shrinkage(since - at_list) * inner - longest)
            if strayed(listed.x, listed_at, since - at_list, lasts) == 0:
                move_images(listed, since)
            else:
                bad = runaway(listed.x, listed.v, f, dt)
                if bad >= 0:
                    return positions, velocities, positions, cell, step, listed.names[bad]
                lasts = 0.5 * (shrinkage(since) * outer - inner)
                if strayed(listed.x, sorted_at, since, lasts) == 0:
                    move_images(listed, since)
                else:
                    grown = sheared(listed.cell, since)
                    listed = sort_and_list(listed.x, listed.v, listed.names, listed.species, SPECIES, grown, outer, threads)
                    sorted_at, since = listed.x.copy(), 0.0
                near, kinds = near_by_species(listed, SPECIES, inner)
                listed_at, at_list, shear = listed.x.copy(), since, np.zeros(near.start.size)
        visit(listed.extended, near, kinds, table, cuts, f, shear, nothing)
        if step >= 0:
            done, taken = strain_velocities(listed.v, half, isokinetic)
            work, heat = work + done - half * 0.5 * shear.sum(), heat + taken
            heat += _half_kick(listed.v, f, dt, isokinetic)
        if stride == 0 or (step + 1) % stride == 0:
            bad = runaway(listed.x, listed.v, f, dt)
            if bad >= 0:
                return positions, velocities, positions, cell, step + 1, listed.names[bad]
        if samples.shape[0] > 0 and (stride == 0 or (step >= 0 and (step + 1) % stride == 0)):
            found = np.empty((near.start.size, 8))
            visit(listed.extended, near, kinds, table, cuts, f, shear, found)
            _record(listed.v, found, heat, work, samples[step // stride if stride else 0])
    x, v, names = listed.x, listed.v, listed.names
    return by_name(x, names), by_name(v, names), by_name(f, names), sheared(listed.cell, since), -1, -1
