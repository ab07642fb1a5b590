"""Dissipative particle dynamics: soft repulsion, and friction and noise along the line between two particles.

    F_ij = a (1 - r) e  -  gamma (1 - r)^2 (e . v_ij) e  +  sqrt(2 gamma kT) (1 - r) dW_ij/dt e      for r < 1, e = r_ij / r

Mass 1, range 1; a depends on the species of the two. Successive beads of a chain also attract each other by a spring,
F = -C r. A step of length dt is B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2) with kicks B of these forces and drifts A. O visits the
pairs one after the other: friction and noise of a pair alone are an Ornstein-Uhlenbeck process of its relative velocity along
e, which is solved exactly. So O keeps the total momentum and the Maxwell distribution at any time step, and what error there
is comes from the forces, of order dt^2; the ideal fluid, a = 0, has none.

Half a step on a particle has moved by a fair part of the range, so that no list of neighbours would last. Particles are
sorted into cells instead, each half step anew. The noise of a pair in a step is a hash of the key, the step and the two
particles. So a state determines its future to the bit, however a run is cut into calls. Sources: R. D. Groot and
P. B. Warren, J. Chem. Phys. 107, 4423 (1997); E. A. J. F. Peters, Europhys. Lett. 66, 311 (2004).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.random import Key
from manybody.numerics.jit import exact_kernel
from manybody.numerics.pair_noise import GOLDEN, mixed, normal

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Table = tuple[tuple[float, ...], ...]

LONGEST_STEP = 0.5  # no particle of a sound run moves this far in one time step
LEAST_EDGE = 2.0  # below it two images of a particle would be within the range of another
# What is recorded of a sample, in this order.
COLUMNS = (
    "energy", "virial_x", "virial_y", "virial_z", "squared_force", "laplacian", "pairs", "unlike_pairs",
    "kinetic_energy", "fourth_moment", "momentum_x", "momentum_y", "momentum_z", "heat",
)  # fmt: skip


@exact_kernel
def sort_into_cells(x: Array, box: Array) -> tuple[Indices, Indices, Indices, Array]:
    """Cells at least 1 wide: how many along each edge [3], where each begins [cells + 1], and the particles in their order.

    Last come these particles' wrapped positions [3, particles]. Within a cell the order is that of the particles.
    """
    n = x.shape[0]
    shape, width = np.empty(3, np.int64), max(1.0, (box[0] * box[1] * box[2] / n) ** (1 / 3))  # about as many as particles
    for d in range(3):
        shape[d] = max(1, int(box[d] / width))
    cell, wrapped = np.empty(n, np.int64), np.empty((3, n))
    start = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    for i in range(n):
        home = 0
        for d in range(3):
            wrapped[d, i] = x[i, d] - box[d] * math.floor(x[i, d] / box[d])
            home = home * shape[d] + min(shape[d] - 1, int(wrapped[d, i] / box[d] * shape[d]))
        cell[i] = home
        start[home + 1] += 1
    for home in range(len(start) - 1):
        start[home + 1] += start[home]
    order, place, y = np.empty(n, np.int64), start.copy(), np.empty((3, n))
    for i in range(n):
        s = place[cell[i]]
        place[cell[i]] += 1
        order[s] = i
        for d in range(3):
            y[d, s] = wrapped[d, i]
    return shape, start, order, y


@exact_kernel
def find_runs(home: int, shape: Indices, start: Indices, box: Array, runs: Indices, shifts: Array) -> int:
    """Where those are that may be within the range of a cell's particles: itself first, then half of its 26 neighbours.

    runs [26, 2] and shifts [26, 3] are filled with stretches of places in the order of cells, and with how far they are moved
    where they are images across the border; how many there are. Over all cells each pair of particle and image comes once.
    """
    a, b, c = home // (shape[1] * shape[2]), home // shape[2] % shape[1], home % shape[2]
    runs[0], shifts[:] = (start[home], start[home + 1]), 0.0
    count = 1
    for column in range(5):  # the cell above, and the columns of three at (0, 1), (1, -1), (1, 0) and (1, 1)
        at_a, at_b = a + (1 if column > 1 else 0), b + (0 if column == 0 else 1 if column == 1 else column - 3)
        for at_c in range(c + 1 if column == 0 else c - 1, c + 2):
            over_a, over_b = (1 if at_a == shape[0] else 0), (1 if at_b == shape[1] else -1 if at_b < 0 else 0)
            over_c = 1 if at_c == shape[2] else -1 if at_c < 0 else 0
            there = ((at_a - over_a * shape[0]) * shape[1] + at_b - over_b * shape[1]) * shape[2] + at_c - over_c * shape[2]
            if over_c == 0 and at_c > 0 and at_c > c - 1 and column > 0:  # goes on where the cell before ends
                runs[count - 1, 1] = start[there + 1]
                continue
            runs[count] = (start[there], start[there + 1])
            shifts[count] = (over_a * box[0], over_b * box[1], over_c * box[2])
            count += 1
    return count


@exact_kernel
def close_pairs(x: Array, box: Array) -> tuple[Indices, Indices, Array, Array]:
    """All pairs within the range: the first of each, the second, x_first - x_second [pairs, 3], and their distance.

    x: [particles, 3], wrapped or not; edges of the box [3] at least `LEAST_EDGE`. The order is a function of x alone.
    """
    shape, start, order, y = sort_into_cells(x, box)
    room = 14 * np.max(start[1:] - start[:-1])
    near, place, squares, hits = np.empty((3, room)), np.empty(room, np.int64), np.empty(room), np.empty(room, np.int64)
    runs, shifts = np.empty((26, 2), np.int64), np.empty((26, 3))
    first, second = np.empty(16 * len(x), np.int64), np.empty(16 * len(x), np.int64)
    apart, count = np.empty((16 * len(x), 3)), 0
    for home in range(len(start) - 1):
        own = start[home + 1] - start[home]
        many = 0
        for run in range(find_runs(home, shape, start, box, runs, shifts) if own else 0):
            for s in range(runs[run, 0], runs[run, 1]):
                for d in range(3):
                    near[d, many] = y[d, s] + shifts[run, d]
                place[many] = order[s]
                many += 1
        if count + own * many > len(first):
            more = max(len(first), own * many)
            first, second = np.concatenate((first, np.empty(more, np.int64))), np.concatenate((second, np.empty(more, np.int64)))
            apart = np.concatenate((apart, np.empty((more, 3))))
        for p in range(own):
            for h in range(find_within_range(p, many, near, squares, hits)):
                first[count], second[count] = place[p], place[hits[h]]
                for d in range(3):
                    apart[count, d] = near[d, p] - near[d, hits[h]]
                count += 1
    apart = apart[:count]
    return first[:count], second[:count], apart, np.sqrt(apart[:, 0] ** 2 + apart[:, 1] ** 2 + apart[:, 2] ** 2)


@exact_kernel
def find_within_range(p: int, many: int, near: Array, squares: Array, hits: Indices) -> int:
    """Which of near[:, p + 1 : many] are within the range of near[:, p], into `hits`; how many.

    Loops run from 0, which is what lets them become SIMD.
    """
    x, y, z = near[0, p], near[1, p], near[2, p]
    xs, ys, zs, after = near[0, p + 1 : many], near[1, p + 1 : many], near[2, p + 1 : many], squares[p + 1 : many]
    for k in range(len(after)):
        after[k] = (x - xs[k]) ** 2 + (y - ys[k]) ** 2 + (z - zs[k]) ** 2
    found = 0
    for k in range(len(after)):
        hits[found] = p + 1 + k
        found += 1 if 0.0 < after[k] < 1.0 else 0
    return found


@exact_kernel
def add_forces(
    x: Array, species: Indices, first: Indices, second: Indices, apart: Array, distance: Array, a: Array, beads: int,
    spring: float, f: Array, row: Array,
) -> None:  # fmt: skip
    """Forces of the `close_pairs` and of springs, into f [particles, 3]; the part of a record that depends on x, into `row`."""
    f[:] = 0.0
    row[:] = 0.0
    for k in range(len(first)):
        i, j, r = first[k], second[k], distance[k]
        strength = a[species[i], species[j]]
        pull = strength * (1.0 / r - 1.0)
        for d in range(3):
            f[i, d] += pull * apart[k, d]
            f[j, d] -= pull * apart[k, d]
            row[1 + d] += pull * apart[k, d] ** 2
        row[0] += 0.5 * strength * (1.0 - r) ** 2
        row[5] += 2.0 * strength * (3.0 - 2.0 / r)  # of both particles: u'' + 2 u'/r each
        row[7] += 1.0 if species[i] != species[j] else 0.0
    row[6] = len(first)
    for i in range(x.shape[0] - 1 if beads > 1 else 0):
        if (i + 1) % beads:
            for d in range(3):
                bond = x[i + 1, d] - x[i, d]
                f[i, d] += spring * bond
                f[i + 1, d] -= spring * bond
                row[0] += 0.5 * spring * bond**2
                row[1 + d] -= spring * bond**2
                row[5] += 2.0 * spring
    row[4] = (f * f).sum()


@exact_kernel
def exchange(
    v: Array, first: Indices, second: Indices, apart: Array, distance: Array, gamma: float, kT: float, dt: float,
    key: np.uint64, step: int,
) -> float:  # fmt: skip
    """O(dt): the relative velocity of each of the `close_pairs` along e relaxes and is kicked; the heat taken up."""
    words, heat = np.empty(v.shape[0], np.uint64), 0.0
    word = mixed(key + GOLDEN * np.uint64(step + 1))
    for i in range(v.shape[0]):
        words[i] = mixed(word + GOLDEN * np.uint64(i + 1))
    for k in range(len(first)):
        i, j, r = first[k], second[k], distance[k]
        ex, ey, ez = apart[k, 0] / r, apart[k, 1] / r, apart[k, 2] / r
        along = (v[i, 0] - v[j, 0]) * ex + (v[i, 1] - v[j, 1]) * ey + (v[i, 2] - v[j, 2]) * ez
        noise = normal(mixed(words[min(i, j)] + GOLDEN * np.uint64(max(i, j) + 1)))
        # the reduced mass is 1/2: relaxation at the rate 2 gamma w^2, to the variance 2 kT
        decay = math.exp(-2.0 * gamma * (1.0 - r) ** 2 * dt)
        after = decay * along + math.sqrt((1.0 - decay * decay) * 2.0 * kT) * (noise if i < j else -noise)
        heat += 0.25 * (after * after - along * along)
        change = 0.5 * (after - along)
        v[i, 0] += change * ex
        v[i, 1] += change * ey
        v[i, 2] += change * ez
        v[j, 0] -= change * ex
        v[j, 1] -= change * ey
        v[j, 2] -= change * ez
    return heat


@exact_kernel
def account(v: Array, row: Array) -> None:
    """The part of what is recorded that depends on velocities [particles, 3], into `row`."""
    row[8:] = 0.0
    for i in range(v.shape[0]):
        for d in range(3):
            row[8] += 0.5 * v[i, d] ** 2
            row[9] += v[i, d] ** 4
            row[10 + d] += v[i, d]


@exact_kernel
def advance(
    positions: Array, velocities: Array, species: Indices, box: Array, a: Array, beads: int, spring: float, gamma: float,
    kT: float, dt: float, key: np.uint64, first: int, stride: int, samples: Array,
) -> tuple[Array, Array, int, int]:  # fmt: skip
    """Advance by ``len(samples) * stride`` steps, the first being step number `first`.

    positions (not wrapped), velocities: [particles, 3]; species: [particles]; box: [3]; a: [species, species]. samples
    [samples, COLUMNS] is filled, heat counting from the start. Returns positions and velocities, and the step and the particle
    at which one moves further than `LONGEST_STEP` or to no number, else -1, -1.
    """
    x, v, f, row = positions.copy(), velocities.copy(), np.zeros_like(positions), np.empty(samples.shape[1])
    heat, step, last = 0.0, first, first + stride * samples.shape[0]
    for i in range(x.shape[0]):
        if not np.isfinite(x[i, 0] + x[i, 1] + x[i, 2]):
            return positions, velocities, first, i
    while True:
        one, other, apart, distance = close_pairs(x, box)
        add_forces(x, species, one, other, apart, distance, a, beads, spring, f, row)
        if step > first:
            v += 0.5 * dt * f
            if (step - first) % stride == 0:
                account(v, row)
                row[13] = heat
                samples[(step - first) // stride - 1] = row
        if step == last:
            return x, v, -1, -1
        v += 0.5 * dt * f
        for half in range(2):
            for i in range(x.shape[0]):
                length2 = 0.0
                for d in range(3):
                    x[i, d] += 0.5 * dt * v[i, d]
                    length2 += (dt * v[i, d]) ** 2
                if not length2 < LONGEST_STEP * LONGEST_STEP:
                    return positions, velocities, step, i
            if half == 0:
                one, other, apart, distance = close_pairs(x, box)
                heat += exchange(v, one, other, apart, distance, gamma, kT, dt, key, step)
        step += 1


@dataclass(frozen=True)
class DissipativeFluid:
    """A fluid of particles of mass 1 and range 1 in a periodic box of edges `box` [3].

    repulsion: a, energy over length, or one for each two species, [species][species]; friction: gamma, 1/time, at contact;
    temperature: kT; time_step. Of `beads` above 1, so many successive particles are a chain, held by springs of constant
    `spring`, energy over length squared, and resting length 0.
    """

    box: tuple[float, float, float]
    repulsion: float | Table = 25.0
    friction: float = 4.5
    temperature: float = 1.0
    time_step: float = 0.04
    beads: int = 1
    spring: float = 0.0

    def __post_init__(self) -> None:
        if min(self.box) < LEAST_EDGE:
            came = f"{list(self.box)}"
            raise InputError(Problem("dissipative fluid", f"edges of at least {LEAST_EDGE:g}", came, "Take more particles."))
        values = (float(self.table.min()), self.friction, self.temperature, self.spring)
        if not (all(value >= 0 for value in values) and self.time_step > 0):
            came = f"{values} and a time step of {self.time_step:g}"
            expected = "a repulsion, friction, temperature and spring that are not negative, and a time step"
            raise InputError(Problem("dissipative fluid", expected, came, "Take the signs off."))

    @property
    def table(self) -> Array:
        """The repulsion of each two species, [species, species]."""
        return np.atleast_2d(np.asarray(self.repulsion, dtype=np.float64))

    def start(self, particles: int, key: Key) -> tuple[Array, Array]:
        """Positions at random, chains as random walks, and Maxwell velocities without total momentum, both [particles, 3]."""
        generator = key.derive("start").generator()
        velocities = math.sqrt(self.temperature) * generator.standard_normal((particles, 3))
        positions = generator.uniform(0, 1, (particles, 3)) * self.box
        if self.beads > 1:
            hops = math.sqrt(self.temperature / self.spring) * generator.standard_normal((particles, 3))
            hops[:: self.beads] = positions[:: self.beads]
            positions = np.cumsum(hops.reshape(-1, self.beads, 3), axis=1).reshape(-1, 3)
        return positions, velocities - velocities.mean(axis=0)

    def look(self, positions: Array, velocities: Array, species: Indices | None = None) -> Array:
        """What is recorded of a state [COLUMNS], with no heat; arguments as for `advance`."""
        kinds = np.zeros(len(positions), np.int64) if species is None else species
        f, row, box = np.empty_like(positions), np.empty(len(COLUMNS)), np.array(self.box)
        add_forces(positions, kinds, *close_pairs(positions, box), self.table, self.beads, self.spring, f, row)
        account(velocities, row)
        return row

    def advance(
        self, positions: Array, velocities: Array, key: Key, step: int, stride: int, samples: int = 1,
        species: Indices | None = None,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Positions and velocities [particles, 3] after ``stride * samples`` steps, the first being number `step`; samples.

        The samples [samples, COLUMNS], one each `stride` steps: heat is that taken up since the start. species: [particles],
        all 0 where not given. Cut into calls, a path has the same bits. Raises `TaskError` with step, particle and remedy
        where the run explodes.
        """
        rows = np.empty((samples, len(COLUMNS)))
        word = np.uint64((key.value ^ (key.value >> 64)) & 0xFFFFFFFFFFFFFFFF)
        kinds = np.zeros(len(positions), np.int64) if species is None else species
        x, v, failed, particle = advance(
            positions, velocities, kinds, np.array(self.box), self.table, self.beads, self.spring, self.friction,
            self.temperature, self.time_step, word, step, stride, rows,
        )  # fmt: skip
        if particle >= 0:
            raise TaskError(
                f"Step {failed}: particle {particle} moves further than {LONGEST_STEP:g} in one time step, or has no finite "
                f"position; the run has exploded. Lower `time_step` (now {self.time_step:g}) or the repulsion."
            )
        return x, v, rows
