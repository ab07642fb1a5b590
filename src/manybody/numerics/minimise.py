"""Minimisation of an energy: FIRE and L-BFGS.

FIRE follows damped dynamics that stops whenever it goes uphill (E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with
the corrections of J. Guénolé et al., Comput. Mater. Sci. 175, 109584 (2020)); it forgives rough starts. L-BFGS (J. Nocedal,
Math. Comput. 35, 773 (1980)) builds the curvature from its own steps, never goes uphill, and ends fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from manybody.core.errors import InputError, Problem

Evaluate = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended: positions [atoms, 3], forces [atoms, 3], and the energy at every step.

    `converged` says whether the largest force on an atom is below the tolerance.
    """

    positions: np.ndarray
    forces: np.ndarray
    energies: np.ndarray
    converged: bool

    @property
    def energy(self) -> float:
        """The energy at the end."""
        return float(self.energies[-1])

    @property
    def largest_force(self) -> float:
        """The largest force on an atom at the end."""
        return _largest(self.forces)


def fire(
    evaluate: Evaluate,
    start: np.ndarray,
    tolerance: float,
    most_steps: int = 20_000,
    time_step: float = 0.005,
    reach: float = 0.1,
) -> Minimum:
    """Minimise from `start` [atoms, 3] until no force exceeds `tolerance`; `evaluate` gives energy and forces.

    Time steps grow from `time_step` to ten times that; no atom moves further than `reach` in one, so that overlapping
    atoms part slowly. Raises `InputError` where the start has no finite energy.
    """
    x, v, step = start.copy(), np.zeros_like(start), np.zeros_like(start)
    energy, f = _begin(evaluate, x)
    energies, dt, mixing, downhill, tiny = [energy], time_step, 0.1, 0, np.finfo(float).tiny
    while _largest(f) > tolerance and len(energies) <= most_steps:
        if np.vdot(f, v) > 0:
            downhill += 1
            if downhill > 20:
                dt, mixing = min(1.1 * dt, 10 * time_step), 0.99 * mixing
        else:
            x -= 0.5 * step  # half of the step uphill is taken back
            v[:] = 0
            dt, mixing, downhill = max(0.5 * dt, 0.02 * time_step), 0.1, 0
        v += dt * f
        v = (1 - mixing) * v + mixing * f * (np.linalg.norm(v) / np.linalg.norm(f))
        v *= np.minimum(1, reach / np.maximum(dt * np.linalg.norm(v, axis=1, keepdims=True), tiny))
        step = dt * v
        x += step
        energy, f = evaluate(x)
        energies.append(energy)
    return Minimum(x, f, np.array(energies), _largest(f) <= tolerance)


def l_bfgs(
    evaluate: Evaluate, start: np.ndarray, tolerance: float, most_steps: int = 5_000, memory: int = 10, reach: float = 0.1
) -> Minimum:
    """Minimise from `start` [atoms, 3] until no force exceeds `tolerance`; `evaluate` gives energy and forces.

    Every step lowers the energy (to round-off), and moves no atom further than `reach`. Raises `InputError` where the start
    has no finite energy.
    """
    x = start.copy()
    energy, f = _begin(evaluate, x)
    energies, pairs = [energy], deque[tuple[np.ndarray, np.ndarray]](maxlen=memory)
    while _largest(f) > tolerance and len(energies) <= most_steps:
        direction = _newton(f, pairs)
        if np.vdot(direction, f) <= 0:  # the curvature is out of date
            pairs.clear()
            direction = f
        found = _search(evaluate, x, energy, f, _limited(direction, reach))
        if found is None and not pairs:
            break  # no step along the force lowers the energy: round-off is reached
        if found is None:
            pairs.clear()
            continue
        step, energy, after = found
        if np.vdot(step, f - after) > 0:
            pairs.append((step, f - after))
        x, f = x + step, after
        energies.append(energy)
    return Minimum(x, f, np.array(energies), _largest(f) <= tolerance)


def _newton(f: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The approximate inverse curvature times the force, by Nocedal's two loops over (step, change of -f)."""
    q, shares = f.copy(), []
    for step, change in reversed(pairs):
        share = np.vdot(step, q) / np.vdot(step, change)
        q -= share * change
        shares.append(share)
    if pairs:
        step, change = pairs[-1]
        q *= np.vdot(step, change) / np.vdot(change, change)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        q += step * (share - np.vdot(change, q) / np.vdot(step, change))
    return q


def _search(
    evaluate: Evaluate, x: np.ndarray, energy: float, f: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """The step, halved until it lowers the energy enough (Armijo), with energy and forces there; None where none does.

    Where the gain drowns in the round-off of the energy, a smaller force decides.
    """
    noise = 4 * np.finfo(float).eps * max(1.0, abs(energy))
    for _ in range(40):
        found, after = evaluate(x + step)
        gain = float(np.vdot(step, f))
        if found <= energy - 1e-4 * gain or (found <= energy + noise and _largest(after) < _largest(f)):
            return step, found, after
        step = 0.5 * step
    return None


def _begin(evaluate: Evaluate, x: np.ndarray) -> tuple[float, np.ndarray]:
    energy, f = evaluate(x)
    if np.isfinite(energy) and np.isfinite(f).all():
        return energy, f
    bad = int(np.argmin(np.isfinite(f).all(axis=1)))
    raise InputError(
        Problem(
            where="start of a minimisation",
            expected="finite energy and forces",
            came=f"energy {energy:g}, and force {f[bad].tolist()} on atom {bad}",
            remedy="Move atoms that lie on top of each other apart.",
        )
    )


def _limited(step: np.ndarray, reach: float) -> np.ndarray:
    """`step` [atoms, 3], shortened as a whole so that no atom moves further than `reach`."""
    longest = _largest(step)
    return step if longest <= reach else step * (reach / longest)


def _largest(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1).max()))
