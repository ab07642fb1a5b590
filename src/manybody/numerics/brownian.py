"""Overdamped motion of self-propelled disks in a plane: pairs, lists, and one compiled call for many time steps.

    dx = v n dt + mu F(x) dt + sqrt(2 D) dW,   n = (cos theta, sin theta),   d theta = sqrt(2 D_r) dW'

One step is Heun's: an Euler step predicts x and theta, then the drift at both ends is averaged,

    x' = x + dt/2 [v n + mu F(x) + v n' + mu F(x + dt (v n + mu F(x)) + dB)] + dB,   theta' = theta + dB'

with the same Gaussian increments dB in both. The noise is additive, so expectations converge with dt^2 and paths with dt
(P. E. Kloeden and E. Platen, Numerical Solution of Stochastic Differential Equations (1992), sections 15.1 and 10.3);
the increments of theta are exact.

The list holds each pair once, sorted by particle, and pairs beyond the cutoff add nothing. So forces are summed in an
order that does not depend on when a list was made: a path has the same bits however it is cut into calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from manybody.core.random import Key
from manybody.numerics.jit import exact_kernel

CUTOFF2 = 2 ** (1 / 3)  # squared distance at which 4 (r^-12 - r^-6) is lowest, in squared diameters
LONGEST_STEP = 0.5  # diameters; no disk that sees others moves this far in one time step of a sound run
NOISE_CHUNK = 16  # time steps whose random numbers are drawn from one key


@exact_kernel
def wca_energy(r2: float, epsilon: float) -> float:
    """Weeks-Chandler-Andersen energy within the cutoff, 4 epsilon (r^-12 - r^-6) + epsilon; r2 in squared diameters."""
    inverse6 = 1.0 / (r2 * r2 * r2)
    return 4.0 * epsilon * (inverse6 * inverse6 - inverse6) + epsilon


@exact_kernel
def wca_pull(r2: float, epsilon: float) -> float:
    """Its force over the distance within the cutoff, -u'(r)/r = 24 epsilon (2 r^-12 - r^-6) / r^2."""
    inverse2 = 1.0 / r2
    inverse6 = inverse2 * inverse2 * inverse2
    return 24.0 * epsilon * (2.0 * inverse6 * inverse6 - inverse6) * inverse2


@exact_kernel
def _cells(x: np.ndarray, edge: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of every particle, wrapped, on a grid of side x side: first particle of each cell, next of each particle."""
    first, following = np.full(side * side, -1), np.full(x.shape[0], -1)
    for i in range(x.shape[0] - 1, -1, -1):
        column = min(side - 1, int((x[i, 0] / edge - math.floor(x[i, 0] / edge)) * side))
        row = min(side - 1, int((x[i, 1] / edge - math.floor(x[i, 1] / edge)) * side))
        cell = column * side + row
        following[i], first[cell] = first[cell], i
    return first, following


@exact_kernel
def near(x: np.ndarray, i: int, j: int, edge: float) -> float:
    """Squared distance of two particles, nearest images."""
    dx, dy = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1]
    dx -= edge * np.round(dx / edge)
    dy -= edge * np.round(dy / edge)
    return float(dx * dx + dy * dy)


@exact_kernel
def _sort(values: np.ndarray, low: int, high: int) -> None:
    """Sort values[low:high] in place; a handful of them."""
    for k in range(low + 1, high):
        value, place = values[k], k
        while place > low and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@exact_kernel
def pair_list(x: np.ndarray, edge: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Every pair within `reach` once: start [particles + 1] and entries, those of i being the j > i in ascending order.

    x: [particles, 2] in a periodic square, wrapped or not; reach at most half the edge.
    """
    n = x.shape[0]
    side = max(1, int(edge / reach))
    around = 1 if side >= 3 else 0
    if around == 0:
        side = 1  # cells would meet their own images
    first, following = _cells(x, edge, side)
    start, entries = np.zeros(n + 1, np.int64), np.empty(8 * n, np.int64)
    count = 0
    for i in range(n):
        column = min(side - 1, int((x[i, 0] / edge - math.floor(x[i, 0] / edge)) * side))
        row = min(side - 1, int((x[i, 1] / edge - math.floor(x[i, 1] / edge)) * side))
        for dc in range(-around, around + 1):
            for dr in range(-around, around + 1):
                j = first[((column + dc) % side) * side + (row + dr) % side]
                while j >= 0:
                    if j > i and near(x, i, j, edge) < reach * reach:
                        if count == entries.size:
                            entries = np.concatenate((entries, np.empty_like(entries)))
                        entries[count] = j
                        count += 1
                    j = following[j]
        _sort(entries, start[i], count)
        start[i + 1] = count
    return start, entries[:count].copy()


@exact_kernel
def add_forces(x: np.ndarray, edge: float, start: np.ndarray, entries: np.ndarray, epsilon: float, f: np.ndarray) -> None:
    """The forces of all listed pairs within the cutoff, into f [particles, 2]."""
    f[:] = 0.0
    per_edge = 1.0 / edge
    for i in range(x.shape[0]):
        fx = fy = 0.0
        for k in range(start[i], start[i + 1]):
            j = entries[k]
            dx, dy = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1]
            dx -= edge * np.round(dx * per_edge)
            dy -= edge * np.round(dy * per_edge)
            r2 = dx * dx + dy * dy
            if r2 < CUTOFF2:
                pull = wca_pull(r2, epsilon)
                fx += pull * dx
                fy += pull * dy
                f[j, 0] -= pull * dx
                f[j, 1] -= pull * dy
        f[i, 0] += fx
        f[i, 1] += fy


@exact_kernel
def evaluate(x: np.ndarray, edge: float, epsilon: float) -> tuple[np.ndarray, float, float]:
    """Forces [particles, 2], energy, and virial sum over pairs of r . f, of positions [particles, 2]."""
    f = np.zeros_like(x)
    energy = virial = 0.0
    if epsilon > 0.0:
        start, entries = pair_list(x, edge, math.sqrt(CUTOFF2))
        add_forces(x, edge, start, entries, epsilon, f)
        for i in range(x.shape[0]):
            for k in range(start[i], start[i + 1]):
                r2 = near(x, i, entries[k], edge)
                if r2 < CUTOFF2:
                    energy += wca_energy(r2, epsilon)
                    virial += wca_pull(r2, epsilon) * r2
    return f, energy, virial


@exact_kernel
def stale(x: np.ndarray, listed: np.ndarray, half_skin: float) -> bool:
    """Whether a particle has moved further than half the skin since the list was made."""
    for i in range(x.shape[0]):
        dx, dy = x[i, 0] - listed[i, 0], x[i, 1] - listed[i, 1]
        if dx * dx + dy * dy > half_skin * half_skin:
            return True
    return False


@exact_kernel
def advance(
    positions: np.ndarray, angles: np.ndarray, edge: float, epsilon: float, mobility: float, speed: float,
    widths: tuple[float, float], dt: float, skin: float, noise: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:  # fmt: skip
    """Advance by ``len(noise)`` Heun steps in a periodic square; epsilon 0 means no pairs.

    positions [particles, 2], not wrapped; angles [particles]; widths sqrt(2 D dt), sqrt(2 D_r dt); noise
    [steps, particles, 3], standard normal. Returns positions, angles, the mean displacement [2] by propulsion and noise
    alone, and the step and particle at which one moves further than `LONGEST_STEP` (where there are pairs) or to no number,
    else -1, -1.
    """
    x, theta, n = positions.copy(), angles.copy(), positions.shape[0]
    predicted, f, g = np.empty_like(x), np.zeros_like(x), np.zeros_like(x)
    heading, turned = np.empty_like(x), np.empty_like(x)
    for i in range(n):
        heading[i, 0], heading[i, 1] = math.cos(theta[i]), math.sin(theta[i])
    driven, reach = np.zeros(2), math.sqrt(CUTOFF2) + skin
    longest = LONGEST_STEP if epsilon > 0.0 else math.inf
    listed = x.copy()
    start, entries = pair_list(x, edge, reach) if epsilon > 0.0 else (np.zeros(n + 1, np.int64), np.empty(0, np.int64))
    for step in range(noise.shape[0]):
        if epsilon > 0.0:
            if stale(x, listed, 0.5 * skin):
                listed[:] = x
                start, entries = pair_list(x, edge, reach)
            add_forces(x, edge, start, entries, epsilon, f)
        for i in range(n):
            length2 = 0.0
            for d in range(2):
                move = dt * (speed * heading[i, d] + mobility * f[i, d]) + widths[0] * noise[step, i, d]
                predicted[i, d] = x[i, d] + move
                length2 += move * move
            if not length2 < longest * longest:
                return positions, angles, driven, step, i
            theta[i] += widths[1] * noise[step, i, 2]
            turned[i, 0], turned[i, 1] = math.cos(theta[i]), math.sin(theta[i])
        if epsilon > 0.0:
            if stale(predicted, listed, 0.5 * skin):
                listed[:] = predicted
                start, entries = pair_list(predicted, edge, reach)
            add_forces(predicted, edge, start, entries, epsilon, g)
        pushed_x = pushed_y = 0.0
        for i in range(n):
            free_x = 0.5 * dt * speed * (heading[i, 0] + turned[i, 0]) + widths[0] * noise[step, i, 0]
            free_y = 0.5 * dt * speed * (heading[i, 1] + turned[i, 1]) + widths[0] * noise[step, i, 1]
            move_x = free_x + 0.5 * dt * mobility * (f[i, 0] + g[i, 0])
            move_y = free_y + 0.5 * dt * mobility * (f[i, 1] + g[i, 1])
            if not move_x * move_x + move_y * move_y < longest * longest:
                return positions, angles, driven, step, i
            x[i, 0] += move_x
            x[i, 1] += move_y
            pushed_x += free_x
            pushed_y += free_y
        driven[0] += pushed_x / n
        driven[1] += pushed_y / n
        heading, turned = turned, heading
    return x, theta, driven, -1, -1


def gaussian_noise(key: Key, step: int, steps: int, particles: int, numbers: int = 3) -> np.ndarray:
    """Standard normal numbers [steps, particles, numbers] of `steps` time steps from `step` on (`drawn`)."""
    return drawn(key, step, steps, lambda generator: generator.standard_normal((NOISE_CHUNK, particles, numbers)))


def drawn(key: Key, step: int, steps: int, chunk: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    """Random numbers [steps, ..] of `steps` time steps from `step` on; `chunk` draws those of `NOISE_CHUNK` steps.

    Each chunk comes from a key of its own: a step gets the same numbers whichever way a run is cut into calls.
    """
    chunks = [
        chunk(key.derive("noise", index).generator()) for index in range(step // NOISE_CHUNK, -(-(step + steps) // NOISE_CHUNK))
    ]
    first = step % NOISE_CHUNK
    return np.concatenate(chunks)[first : first + steps]
