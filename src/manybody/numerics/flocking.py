"""Self-propelled particles that align with their neighbours in a plane: T. Vicsek et al., Phys. Rev. Lett. 75, 1226 (1995).

    theta_i(t + 1) = arg sum_(|x_j - x_i| < R) exp(i theta_j(t)) + turn_i,   x_i(t + 1) = x_i(t) + v (cos, sin) theta_i(t)

with i itself among the neighbours, nearest images, and all particles moved at once. Particles are sorted into square cells at
least R wide, anew in each step, and the nine cells around one are gathered into a buffer once for all particles in it: the loop
over neighbours is then free of branches and runs in SIMD. Who is in a cell, in which order, follows from the positions alone,
and each particle's sum from its cell; so a path has the same bits on any number of threads, however it is cut into calls.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from manybody.core.random import Key
from manybody.numerics.brownian import NOISE_CHUNK, drawn
from manybody.numerics.jit import kernel, threaded_kernel

PARTS_A_THREAD = 4  # stretches of cells for each thread: flocks are uneven


@kernel
def _cell_of(x: np.ndarray, i: int, edge: float, side: int) -> int:
    column = min(side - 1, int((x[i, 0] / edge - math.floor(x[i, 0] / edge)) * side))
    row = min(side - 1, int((x[i, 1] / edge - math.floor(x[i, 1] / edge)) * side))
    return row * side + column


@kernel
def _sort(x: np.ndarray, heading: np.ndarray, edge: float, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Particles by cell, in ascending order within one.

    Returns their order [n], where each cell starts [cells + 1], and what is read of each in that order [4, n]: x and y,
    wrapped, and both components of its heading.
    """
    n = x.shape[0]
    cell, start = np.empty(n, np.int64), np.zeros(side * side + 1, np.int64)
    for i in range(n):
        cell[i] = _cell_of(x, i, edge, side)
        start[cell[i] + 1] += 1
    for c in range(side * side):
        start[c + 1] += start[c]
    taken, order, row = np.zeros(side * side, np.int64), np.empty(n, np.int64), np.empty((4, n))
    for i in range(n):
        k = start[cell[i]] + taken[cell[i]]
        taken[cell[i]] += 1
        order[k] = i
        for d in range(2):
            row[d, k] = x[i, d] - edge * math.floor(x[i, d] / edge)
            row[2 + d, k] = heading[i, d]
    return order, start, row


@kernel
def _gather(cell: int, edge: float, side: int, start: np.ndarray, row: np.ndarray, buffer: np.ndarray) -> int:
    """Copy the particles of the nine cells around `cell` into the buffer [4, room], at their nearest images; how many."""
    count = 0
    for up in range(-1, 2):
        line = cell // side + up
        shift_y = -edge if line < 0 else (edge if line >= side else 0.0)
        for across in range(-1, 2):
            column = cell % side + across
            shift_x = -edge if column < 0 else (edge if column >= side else 0.0)
            other = (line % side) * side + column % side
            for k in range(start[other], start[other + 1]):
                buffer[0, count] = row[0, k] + shift_x
                buffer[1, count] = row[1, k] + shift_y
                buffer[2, count] = row[2, k]
                buffer[3, count] = row[3, k]
                count += 1
    return count


@kernel
def _sum_near(x: float, y: float, radius2: float, buffer: np.ndarray, count: int) -> tuple[float, float]:
    """The sum of the headings within the radius."""
    near_x, near_y, cosine, sine = buffer[0], buffer[1], buffer[2], buffer[3]
    sum_x = sum_y = 0.0
    for m in range(count):
        dx, dy = near_x[m] - x, near_y[m] - y
        inside = 1.0 if dx * dx + dy * dy < radius2 else 0.0
        sum_x += inside * cosine[m]
        sum_y += inside * sine[m]
    return sum_x, sum_y


@kernel
def _align_cells(
    low: int, high: int, edge: float, radius: float, side: int, order: np.ndarray, start: np.ndarray, row: np.ndarray,
    room: int, out: np.ndarray,
) -> None:  # fmt: skip
    """The sums around the particles of cells low .. high - 1, into out [particles, 2]."""
    buffer = np.empty((4, room))
    for cell in range(low, high):
        if start[cell] < start[cell + 1]:
            count = _gather(cell, edge, side, start, row, buffer)
            for k in range(start[cell], start[cell + 1]):
                out[order[k], 0], out[order[k], 1] = _sum_near(row[0, k], row[1, k], radius * radius, buffer, count)


@threaded_kernel
def _align_parts(
    parts: np.ndarray, edge: float, radius: float, side: int, order: np.ndarray, start: np.ndarray, row: np.ndarray,
    room: int, out: np.ndarray,
) -> None:  # fmt: skip
    for part in prange(parts.size - 1):
        _align_cells(parts[part], parts[part + 1], edge, radius, side, order, start, row, room, out)


@kernel
def _shared_out(start: np.ndarray, count: int) -> np.ndarray:
    """The first cell of each of `count` stretches with about as many particles each, and the end: [count + 1]."""
    cells, parts, cell = start.size - 1, np.empty(count + 1, np.int64), 0
    for part in range(count):
        while start[cell] * count < part * start[cells]:
            cell += 1
        parts[part] = cell
    parts[count] = cells
    return parts


@kernel
def _align_all(x: np.ndarray, heading: np.ndarray, edge: float, radius: float, out: np.ndarray) -> None:
    """The sums by every pair, where the radius is more than a third of the edge."""
    for i in range(x.shape[0]):
        sum_x = sum_y = 0.0
        for j in range(x.shape[0]):
            dx, dy = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1]
            dx -= edge * np.round(dx / edge)
            dy -= edge * np.round(dy / edge)
            inside = 1.0 if dx * dx + dy * dy < radius * radius else 0.0
            sum_x += inside * heading[j, 0]
            sum_y += inside * heading[j, 1]
        out[i, 0], out[i, 1] = sum_x, sum_y


@kernel
def align(x: np.ndarray, heading: np.ndarray, edge: float, radius: float, threads: int, out: np.ndarray) -> None:
    """The sum of the headings of all within the radius of each particle, itself among them, into out [particles, 2].

    x, heading: [particles, 2]; x wrapped or not. With radius 0 it is the particle's own. Cost: O(particles), in a box of
    three radii or more.
    """
    if radius <= 0.0:
        for i in range(x.shape[0]):
            out[i, 0], out[i, 1] = heading[i, 0], heading[i, 1]
    elif edge < 3.0 * radius:
        _align_all(x, heading, edge, radius, out)
    else:
        # No more cells than particles: an empty cell costs as much as a particle.
        side = max(3, min(int(edge / radius), int(math.sqrt(x.shape[0]))))
        order, start, row = _sort(x, heading, edge, side)
        fullest = 0
        for cell in range(side * side):
            fullest = max(fullest, start[cell + 1] - start[cell])
        if threads == 1:
            _align_cells(0, side * side, edge, radius, side, order, start, row, 9 * fullest, out)
        else:
            parts = _shared_out(start, PARTS_A_THREAD * threads)
            _align_parts(parts, edge, radius, side, order, start, row, 9 * fullest, out)


@kernel
def advance_flock(
    positions: np.ndarray, angles: np.ndarray, edge: float, radius: float, speed: float, turns: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and angles ``len(turns)`` steps later. positions [particles, 2], not wrapped; turns [steps, particles]."""
    x, theta, n = positions.copy(), angles.copy(), positions.shape[0]
    heading, total = np.empty_like(x), np.empty_like(x)
    for step in range(turns.shape[0]):
        for i in range(n):
            heading[i, 0], heading[i, 1] = math.cos(theta[i]), math.sin(theta[i])
        align(x, heading, edge, radius, threads, total)
        for i in range(n):
            x[i, 0] += speed * heading[i, 0]
            x[i, 1] += speed * heading[i, 1]
            theta[i] = math.atan2(total[i, 1], total[i, 0]) + turns[step, i]
    return x, theta


def random_turns(key: Key, step: int, steps: int, particles: int, noise: float) -> np.ndarray:
    """Turns [steps, particles] of `steps` steps from `step` on, uniform from -noise/2 to noise/2; radians."""
    return noise * (drawn(key, step, steps, lambda generator: generator.random((NOISE_CHUNK, particles))) - 0.5)
