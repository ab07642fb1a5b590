"""The template of kernels for many small systems side by side. `lanes.py` replaces the part between the marks by a formula.

As it stands it is the kernel of 1/r^12, so that it can be read, linted and run like any other module.

Each lane of a SIMD register belongs to a system of its own, so all pairs are met once, in one order, and no list of
neighbours is needed: for some hundred atoms most pairs are within the cutoff anyhow. Two atoms at a time meet a stretch of
others, so that one division serves two pairs: 1/a = b/(ab), 1/b = a/(ab).

`w` holds six rows of `ROW` numbers, positions and forces by axis, in each of them atom after atom, `LANES` numbers an atom.
`u` holds twelve rows of `BLOCK` numbers: the two atoms' positions, repeated, and the sums of what pulls them. Rows are
reached by constant strides from one base, or the compiler could not tell that they do not overlap.
"""

from __future__ import annotations

import math

import numpy as np

from manybody.numerics.integrators import LANGEVIN, LONGEST_STEP, NO_BATH, rescaling_factor
from manybody.numerics.jit import kernel

LANES = 8  # systems side by side: double-precision numbers in the widest SIMD register
MOST_ATOMS = 208  # so that positions and forces of all lanes stay in a core's second cache
ROW = MOST_ATOMS * LANES + 8  # rows are no multiple of a page apart, where loads would wait for stores
BLOCK = 8 * LANES  # with positions and forces of 64 atoms in a core's first cache
CHECK = 16  # steps between two looks for an explosion


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
def _nearest(d: float, edge: float, inverse: float) -> float:
    """The shortest of all images of a distance along one axis."""
    images: float = np.floor(d * inverse + 0.5)
    return d - edge * images


@kernel
def _pull_one(w: np.ndarray, u: np.ndarray, count: int, box: np.ndarray, cutoff2: float, c: tuple[float, ...]) -> None:
    """What the first atom in `u` and `count` numbers from the start of `w` do to each other."""
    a, b, e, ia, ib, ie = box[0], box[1], box[2], 1.0 / box[0], 1.0 / box[1], 1.0 / box[2]
    for k in range(count):
        dx = _nearest(u[k] - w[k], a, ia)
        dy = _nearest(u[BLOCK + k] - w[ROW + k], b, ib)
        dz = _nearest(u[2 * BLOCK + k] - w[2 * ROW + k], e, ie)
        r2 = dx * dx + dy * dy + dz * dz
        pull = pair_force(r2, 1.0 / r2, c)
        pull = 0.0 if r2 > cutoff2 else pull
        w[3 * ROW + k] -= pull * dx
        w[4 * ROW + k] -= pull * dy
        w[5 * ROW + k] -= pull * dz
        u[3 * BLOCK + k] += pull * dx
        u[4 * BLOCK + k] += pull * dy
        u[5 * BLOCK + k] += pull * dz


@kernel
def _pull_two(w: np.ndarray, u: np.ndarray, count: int, box: np.ndarray, cutoff2: float, c: tuple[float, ...]) -> None:
    """What both atoms in `u` and `count` numbers from the start of `w` do to each other."""
    a, b, e, ia, ib, ie = box[0], box[1], box[2], 1.0 / box[0], 1.0 / box[1], 1.0 / box[2]
    for k in range(count):
        x, y, z = w[k], w[ROW + k], w[2 * ROW + k]
        dxa = _nearest(u[k] - x, a, ia)
        dya = _nearest(u[BLOCK + k] - y, b, ib)
        dza = _nearest(u[2 * BLOCK + k] - z, e, ie)
        dxb = _nearest(u[6 * BLOCK + k] - x, a, ia)
        dyb = _nearest(u[7 * BLOCK + k] - y, b, ib)
        dzb = _nearest(u[8 * BLOCK + k] - z, e, ie)
        ra = dxa * dxa + dya * dya + dza * dza
        rb = dxb * dxb + dyb * dyb + dzb * dzb
        both = 1.0 / (ra * rb)
        pull_a = pair_force(ra, rb * both, c)
        pull_b = pair_force(rb, ra * both, c)
        pull_a = 0.0 if ra > cutoff2 else pull_a
        pull_b = 0.0 if rb > cutoff2 else pull_b
        w[3 * ROW + k] -= pull_a * dxa + pull_b * dxb
        w[4 * ROW + k] -= pull_a * dya + pull_b * dyb
        w[5 * ROW + k] -= pull_a * dza + pull_b * dzb
        u[3 * BLOCK + k] += pull_a * dxa
        u[4 * BLOCK + k] += pull_a * dya
        u[5 * BLOCK + k] += pull_a * dza
        u[9 * BLOCK + k] += pull_b * dxb
        u[10 * BLOCK + k] += pull_b * dyb
        u[11 * BLOCK + k] += pull_b * dzb


@kernel
def _take_up(w: np.ndarray, u: np.ndarray, atom: int, first: int) -> None:
    """Repeat an atom's positions along the rows of `u` from `first` on, and clear the sums after them."""
    for d in range(3):
        row, own = u[(first + d) * BLOCK : (first + d + 1) * BLOCK], w[d * ROW + atom * LANES : d * ROW + (atom + 1) * LANES]
        p, q, r, s, t, m, n, o = own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7]  # one register
        for k in range(0, BLOCK, LANES):
            row[k], row[k + 1], row[k + 2], row[k + 3] = p, q, r, s
            row[k + 4], row[k + 5], row[k + 6], row[k + 7] = t, m, n, o
    u[(first + 3) * BLOCK : (first + 6) * BLOCK] = 0.0


@kernel
def _put_down(w: np.ndarray, u: np.ndarray, atom: int, first: int) -> None:
    """Add the sums in `u` to the forces on an atom."""
    for d in range(3, 6):
        row, own = u[(first + d) * BLOCK : (first + d + 1) * BLOCK], w[d * ROW + atom * LANES : d * ROW + (atom + 1) * LANES]
        for k in range(LANES, BLOCK, LANES):
            for lane in range(LANES):
                row[lane] += row[k + lane]
        for lane in range(LANES):
            own[lane] += row[lane]


@kernel
def forces(w: np.ndarray, u: np.ndarray, atoms: int, box: np.ndarray, cutoff: float, c: tuple[float, ...]) -> None:
    """The forces on all atoms of all lanes, in place."""
    cutoff2, end = cutoff * cutoff, atoms * LANES
    w[3 * ROW :] = 0.0
    for atom in range(0, atoms - 1, 2):
        _take_up(w, u, atom, 0)
        _pull_one(w[(atom + 1) * LANES :], u, LANES, box, cutoff2, c)
        _take_up(w, u, atom + 1, 6)
        for begin in range((atom + 2) * LANES, end, BLOCK):
            _pull_two(w[begin:], u, min(BLOCK, end - begin), box, cutoff2, c)
        _put_down(w, u, atom, 0)
        _put_down(w, u, atom + 1, 6)


@kernel
def sums(w: np.ndarray, atoms: int, box: np.ndarray, cutoff: float, c: tuple[float, ...]) -> np.ndarray:
    """Energy (not shifted), virial and number of the pairs within the cutoff of each lane: [3, LANES]."""
    found, cutoff2 = np.zeros((3, LANES)), cutoff * cutoff
    for i in range(atoms):
        for j in range(i):
            for lane in range(LANES):
                dx = _nearest(w[i * LANES + lane] - w[j * LANES + lane], box[0], 1.0 / box[0])
                dy = _nearest(w[ROW + i * LANES + lane] - w[ROW + j * LANES + lane], box[1], 1.0 / box[1])
                dz = _nearest(w[2 * ROW + i * LANES + lane] - w[2 * ROW + j * LANES + lane], box[2], 1.0 / box[2])
                r2 = dx * dx + dy * dy + dz * dz
                if r2 <= cutoff2:
                    found[0, lane] += pair_energy(r2, 1.0 / r2, c)
                    found[1, lane] += pair_force(r2, 1.0 / r2, c) * r2
                    found[2, lane] += 1.0
    return found


@kernel
def _kinetic(v: np.ndarray, atoms: int, energy: np.ndarray) -> None:
    """The kinetic energy of each lane, into energy [LANES]."""
    energy[:] = 0.0
    for d in range(3):
        for atom in range(atoms):
            own = v[d * ROW + atom * LANES : d * ROW + (atom + 1) * LANES]
            for lane in range(LANES):
                energy[lane] += 0.5 * own[lane] * own[lane]


@kernel
def _move(w: np.ndarray, v: np.ndarray, size: int, kick: float, drift: float) -> None:
    """Velocities change by the force times `kick`, then positions by the velocity times `drift`, in place."""
    for d in range(3):
        x, f, p = w[d * ROW : d * ROW + size], w[(3 + d) * ROW : (3 + d) * ROW + size], v[d * ROW : d * ROW + size]
        for k in range(size):
            p[k] += kick * f[k]
            x[k] += drift * p[k]


@kernel
def _exchange_heat(
    v: np.ndarray, atoms: int, bath: int, decay: float, kT: float, freedom: float, noise: np.ndarray, chi2: np.ndarray,
    step: int, heat: np.ndarray,
) -> None:  # fmt: skip
    """`integrators.heat_bath` in each lane; the heat taken up is added to heat [LANES]."""
    before, after = np.empty(LANES), np.empty(LANES)
    _kinetic(v, atoms, before)
    for lane in range(LANES):
        if bath == LANGEVIN:
            width = math.sqrt((1.0 - decay * decay) * kT)
            for d in range(3):
                for atom in range(atoms):
                    k = d * ROW + atom * LANES + lane
                    v[k] = decay * v[k] + width * noise[lane, step, atom, d]
        else:
            factor = rescaling_factor(before[lane], freedom, kT, decay, noise[lane, step, 0, 0], chi2[lane, step])
            for d in range(3):
                for atom in range(atoms):
                    v[d * ROW + atom * LANES + lane] *= factor
    _kinetic(v, atoms, after)
    for lane in range(LANES):
        heat[lane] += after[lane] - before[lane]


@kernel
def _runaway(w: np.ndarray, v: np.ndarray, atoms: int, dt: float) -> tuple[int, int]:
    """Lane and atom of the first that flies further than `LONGEST_STEP` in a step or is nowhere; -1, -1 when none does."""
    for atom in range(atoms):
        for lane in range(LANES):
            k = atom * LANES + lane
            speed2 = distance = 0.0
            for d in range(3):
                fast = abs(v[d * ROW + k]) + 0.5 * dt * abs(w[(3 + d) * ROW + k])
                speed2 += fast * fast
                distance += abs(w[d * ROW + k])
            if not speed2 * dt * dt < LONGEST_STEP * LONGEST_STEP or not distance < np.inf:
                return lane, atom
    return -1, -1


@kernel
def _laid_out(values: np.ndarray, rows: np.ndarray) -> None:
    """Copy values [LANES, atoms, 3] into the first three rows."""
    for lane in range(LANES):
        for atom in range(values.shape[1]):
            for d in range(3):
                rows[d * ROW + atom * LANES + lane] = values[lane, atom, d]


@kernel
def _record(w: np.ndarray, v: np.ndarray, atoms: int, found: np.ndarray, heat: np.ndarray, rows: np.ndarray) -> None:
    """Fill one row [LANES, 8] of the samples."""
    energy = np.empty(LANES)
    _kinetic(v, atoms, energy)
    for lane in range(LANES):
        for part in range(3):
            rows[lane, part] = found[part, lane]
        rows[lane, 3], rows[lane, 4] = energy[lane], heat[lane]
        for d in range(3):
            total = 0.0
            for atom in range(atoms):
                total += v[d * ROW + atom * LANES + lane]
            rows[lane, 5 + d] = total


@kernel
def evaluate(positions: np.ndarray, box: np.ndarray, cutoff: float, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forces [LANES, atoms, 3] at positions [LANES, atoms, 3]; energy (not shifted), virial and pairs: [3, LANES]."""
    atoms, c = positions.shape[1], coefficients(parameters)
    w, u = np.zeros(6 * ROW), np.empty(12 * BLOCK)
    _laid_out(positions, w)
    forces(w, u, atoms, box, cutoff, c)
    found = np.empty_like(positions)
    for lane in range(LANES):
        for atom in range(atoms):
            for d in range(3):
                found[lane, atom, d] = w[(3 + d) * ROW + atom * LANES + lane]
    return found, sums(w, atoms, box, cutoff, c)


@kernel
def advance(
    positions: np.ndarray, velocities: np.ndarray, box: np.ndarray, cutoff: float, parameters: np.ndarray, dt: float,
    bath: int, decay: float, kT: float, freedom: float, noise: np.ndarray, chi2: np.ndarray, stride: int, samples: np.ndarray,
) -> tuple[int, int, int]:  # fmt: skip
    """Advance positions and velocities [LANES, atoms, 3], in place, by ``len(samples) * stride`` steps.

    box [3]; noise, chi2: `HeatBath.noise` of each lane. samples [samples, LANES, 8] is filled as by
    `pair_template.advance`. Returns step, lane and atom of an explosion, or -1, -1, -1.
    """
    atoms, c = positions.shape[1], coefficients(parameters)
    size, step, heat = atoms * LANES, 0, np.zeros(LANES)
    w, v, u = np.zeros(6 * ROW), np.zeros(3 * ROW), np.empty(12 * BLOCK)
    _laid_out(positions, w)
    _laid_out(velocities, v)
    forces(w, u, atoms, box, cutoff, c)
    for sample in range(samples.shape[0]):
        for _ in range(stride):
            _move(w, v, size, 0.5 * dt, 0.5 * dt)
            if bath != NO_BATH:
                _exchange_heat(v, atoms, bath, decay, kT, freedom, noise, chi2, step, heat)
            _move(w, v, size, 0.0, 0.5 * dt)
            forces(w, u, atoms, box, cutoff, c)
            _move(w, v, size, 0.5 * dt, 0.0)
            step += 1
            if step % CHECK == 0 or step == stride * samples.shape[0]:
                lane, atom = _runaway(w, v, atoms, dt)
                if lane >= 0:
                    return step, lane, atom
        _record(w, v, atoms, sums(w, atoms, box, cutoff, c), heat, samples[sample])
    for lane in range(LANES):
        for atom in range(atoms):
            for d in range(3):
                k = d * ROW + atom * LANES + lane
                positions[lane, atom, d] = w[k] - box[d] * np.floor(w[k] / box[d])
                velocities[lane, atom, d] = v[k]
    return -1, -1, -1
