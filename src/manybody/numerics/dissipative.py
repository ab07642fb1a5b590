"""Dissipative particle dynamics: soft repulsion, and friction and noise along the line between two particles.

    F_ij = a (1 - r) e  -  gamma (1 - r)^2 (e . v_ij) e  +  sqrt(2 gamma kT) (1 - r) dW_ij/dt e      for r < 1, e = r_ij / r

Mass 1, range 1. A step of length dt is B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2) with kicks B of the repulsion and drifts A. O
visits the pairs one after the other: friction and noise of a pair alone are an Ornstein-Uhlenbeck process of its relative
velocity along e, which is solved exactly. So O keeps the total momentum and the Maxwell distribution at any time step, and
what error there is comes from the repulsion, of order dt^2; the ideal fluid, a = 0, has none.

The noise of a pair in a step is a hash of the key, the step and the two particles. It depends on nothing else: not on when
neighbours were listed, nor on how a run is cut into calls. Sources: R. D. Groot and P. B. Warren, J. Chem. Phys. 107,
4423 (1997); E. A. J. F. Peters, Europhys. Lett. 66, 311 (2004).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.random import Key
from manybody.numerics.jit import exact_kernel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SKIN = 0.3  # how much further than the range the list of pairs reaches: speed, not physics
LONGEST_STEP = 0.5  # no particle of a sound run moves this far in one time step
_GOLDEN, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@exact_kernel
def _mix(word: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which each bit of the result depends on all (the finaliser of splitmix64)."""
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@exact_kernel
def pair_noise(key: np.uint64, step: int, i: int, j: int) -> float:
    """A standard normal number of the pair i < j in a step, by Box and Muller from two hashes."""
    word = _mix(key + _GOLDEN * np.uint64(step + 1))
    word = _mix(word + _GOLDEN * np.uint64(i + 1))
    word = _mix(word + _GOLDEN * np.uint64(j + 1))
    other = _mix(word + _GOLDEN)
    radius = (float(word >> _11) + 0.5) * 2.0**-53
    return math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * (float(other >> _11) + 0.5) * 2.0**-53)


@exact_kernel
def _vector(x: Array, i: int, j: int, box: Array, r: Array) -> float:
    """x_i - x_j of the nearest images, into r [3]; its square."""
    square = 0.0
    for d in range(3):
        r[d] = x[i, d] - x[j, d]
        r[d] -= box[d] * np.round(r[d] / box[d])
        square += r[d] * r[d]
    return square


@exact_kernel
def _cell(x: Array, i: int, box: Array, shape: Indices) -> tuple[int, int, int]:
    a = min(shape[0] - 1, int((x[i, 0] / box[0] - math.floor(x[i, 0] / box[0])) * shape[0]))
    b = min(shape[1] - 1, int((x[i, 1] / box[1] - math.floor(x[i, 1] / box[1])) * shape[1]))
    c = min(shape[2] - 1, int((x[i, 2] / box[2] - math.floor(x[i, 2] / box[2])) * shape[2]))
    return a, b, c


@exact_kernel
def pair_list(x: Array, box: Array, reach: float) -> tuple[Indices, Indices]:
    """Every pair within `reach` once: start [particles + 1] and entries, those of i being the j > i in ascending order.

    x: [particles, 3], wrapped or not; reach at most half the shortest edge of the box [3].
    """
    n, r = x.shape[0], np.empty(3)
    shape, around = np.empty(3, np.int64), np.empty(3, np.int64)
    for d in range(3):
        shape[d] = int(box[d] / reach)
        around[d] = 1 if shape[d] >= 3 else 0
        shape[d] = shape[d] if shape[d] >= 3 else 1  # fewer cells would meet their own images
    first, following = np.full(shape[0] * shape[1] * shape[2], -1), np.full(n, -1)
    for i in range(n - 1, -1, -1):
        a, b, c = _cell(x, i, box, shape)
        home = (a * shape[1] + b) * shape[2] + c
        following[i], first[home] = first[home], i
    start, entries, count = np.zeros(n + 1, np.int64), np.empty(16 * n, np.int64), 0
    for i in range(n):
        a, b, c = _cell(x, i, box, shape)
        for da in range(-around[0], around[0] + 1):
            for db in range(-around[1], around[1] + 1):
                for dc in range(-around[2], around[2] + 1):
                    there = ((a + da) % shape[0] * shape[1] + (b + db) % shape[1]) * shape[2] + (c + dc) % shape[2]
                    j = first[there]
                    while j >= 0:
                        if j > i and _vector(x, i, j, box, r) < reach * reach:
                            if count == entries.size:
                                entries = np.concatenate((entries, np.empty_like(entries)))
                            entries[count] = j
                            count += 1
                        j = following[j]
        entries[start[i] : count].sort()
        start[i + 1] = count
    return start, entries[:count].copy()


@exact_kernel
def add_repulsion(x: Array, box: Array, start: Indices, entries: Indices, a: float, f: Array) -> tuple[float, float]:
    """Forces of all listed pairs within the range, into f [particles, 3]; energy and virial (sum of r . f)."""
    f[:] = 0.0
    energy, virial, r = 0.0, 0.0, np.empty(3)
    for i in range(x.shape[0]):
        for k in range(start[i], start[i + 1]):
            j = entries[k]
            square = _vector(x, i, j, box, r)
            if square < 1.0:
                distance = math.sqrt(square)
                energy += 0.5 * a * (1.0 - distance) ** 2
                virial += a * (1.0 - distance) * distance
                pull = a * (1.0 - distance) / max(distance, 1e-300)
                for d in range(3):
                    f[i, d] += pull * r[d]
                    f[j, d] -= pull * r[d]
    return energy, virial


@exact_kernel
def _exchange(
    x: Array,
    v: Array,
    box: Array,
    start: Indices,
    entries: Indices,
    gamma: float,
    kT: float,
    dt: float,
    key: np.uint64,
    step: int,
) -> float:
    """O(dt): each pair's relative velocity along e relaxes and is kicked; the heat taken up."""
    heat, r = 0.0, np.empty(3)
    for i in range(x.shape[0]):
        for k in range(start[i], start[i + 1]):
            j = entries[k]
            square = _vector(x, i, j, box, r)
            if 0.0 < square < 1.0:
                distance = math.sqrt(square)
                along = 0.0
                for d in range(3):
                    along += (v[i, d] - v[j, d]) * r[d] / distance
                # the reduced mass is 1/2: relaxation at the rate 2 gamma w^2, to the variance 2 kT
                decay = math.exp(-2.0 * gamma * (1.0 - distance) ** 2 * dt)
                after = decay * along + math.sqrt((1.0 - decay * decay) * 2.0 * kT) * pair_noise(key, step, i, j)
                heat += 0.25 * (after * after - along * along)
                for d in range(3):
                    change = 0.5 * (after - along) * r[d] / distance
                    v[i, d] += change
                    v[j, d] -= change
    return heat


@exact_kernel
def _stale(x: Array, listed: Array, half_skin: float) -> bool:
    """Whether a particle has moved further than half the skin since the list was made."""
    for i in range(x.shape[0]):
        square = 0.0
        for d in range(3):
            square += (x[i, d] - listed[i, d]) ** 2
        if not square <= half_skin * half_skin:
            return True
    return False


@exact_kernel
def advance(
    positions: Array, velocities: Array, box: Array, a: float, gamma: float, kT: float, dt: float, skin: float, key: np.uint64,
    first: int, stride: int, samples: Array,
) -> tuple[Array, Array, int, int]:  # fmt: skip
    """Advance by ``len(samples) * stride`` steps, the first being step number `first`.

    positions (not wrapped), velocities: [particles, 3]; box: [3]. samples [samples, 4] is filled with energy, virial, kinetic
    energy, and heat taken up since the start. Returns positions and velocities, and the step and the particle at which one
    moves further than `LONGEST_STEP` or to no number, else -1, -1.
    """
    x, v, f, listed = positions.copy(), velocities.copy(), np.zeros_like(positions), positions.copy()
    start, entries = pair_list(x, box, 1.0 + skin)
    energy, virial = add_repulsion(x, box, start, entries, a, f)
    heat, step = 0.0, first
    for sample in range(samples.shape[0]):
        for _ in range(stride):
            for half in range(2):
                for i in range(x.shape[0]):
                    length2 = 0.0
                    for d in range(3):
                        if half == 0:
                            v[i, d] += 0.5 * dt * f[i, d]
                        x[i, d] += 0.5 * dt * v[i, d]
                        length2 += (dt * v[i, d]) ** 2
                    if not length2 < LONGEST_STEP * LONGEST_STEP:
                        return positions, velocities, step, i
                if _stale(x, listed, 0.5 * skin):
                    listed[:] = x
                    start, entries = pair_list(x, box, 1.0 + skin)
                if half == 0:
                    heat += _exchange(x, v, box, start, entries, gamma, kT, dt, key, step)
            energy, virial = add_repulsion(x, box, start, entries, a, f)
            for i in range(x.shape[0]):
                for d in range(3):
                    v[i, d] += 0.5 * dt * f[i, d]
            step += 1
        samples[sample, 0], samples[sample, 1] = energy, virial
        samples[sample, 2], samples[sample, 3] = 0.5 * (v * v).sum(), heat
    return x, v, -1, -1


@dataclass(frozen=True)
class DissipativeFluid:
    """A fluid of particles of mass 1 and range 1 in a periodic box of edges `box` [3].

    repulsion: a, energy over length; friction: gamma, 1/time, at contact; temperature: kT; time_step.
    """

    box: tuple[float, float, float]
    repulsion: float = 25.0
    friction: float = 4.5
    temperature: float = 1.0
    time_step: float = 0.04

    def __post_init__(self) -> None:
        if min(self.box) < 2 * (1 + SKIN):
            came = f"{list(self.box)}"
            raise InputError(Problem("dissipative fluid", f"edges of at least {2 * (1 + SKIN):g}", came, "Take more particles."))
        values = (self.repulsion, self.friction, self.temperature)
        if not (all(value >= 0 for value in values) and self.time_step > 0):
            came = f"{values} and a time step of {self.time_step:g}"
            expected = "a repulsion, friction and temperature that are not negative, and a time step"
            raise InputError(Problem("dissipative fluid", expected, came, "Take the signs off."))

    def start(self, particles: int, key: Key) -> tuple[Array, Array]:
        """Positions at random, and Maxwell velocities without total momentum, both [particles, 3]."""
        generator = key.derive("start").generator()
        velocities = math.sqrt(self.temperature) * generator.standard_normal((particles, 3))
        return generator.uniform(0, 1, (particles, 3)) * self.box, velocities - velocities.mean(axis=0)

    def advance(
        self, positions: Array, velocities: Array, key: Key, step: int, stride: int, samples: int = 1
    ) -> tuple[Array, Array, Array]:
        """Positions and velocities [particles, 3] after ``stride * samples`` steps, the first being number `step`; samples.

        The samples [samples, 4], one each `stride` steps: energy, virial, kinetic energy, heat taken up since the start.
        Cut into calls, a path has the same bits. Raises `TaskError` with step, particle and remedy where the run explodes.
        """
        rows = np.empty((samples, 4))
        word = np.uint64((key.value ^ (key.value >> 64)) & 0xFFFFFFFFFFFFFFFF)
        x, v, failed, particle = advance(
            positions, velocities, np.array(self.box), self.repulsion, self.friction, self.temperature, self.time_step, SKIN,
            word, step, stride, rows,
        )  # fmt: skip
        if particle >= 0:
            raise TaskError(
                f"Step {failed}: particle {particle} moves further than {LONGEST_STEP:g} in one time step, or has no finite "
                f"position; the run has exploded. Lower `time_step` (now {self.time_step:g}) or the repulsion."
            )
        return x, v, rows
