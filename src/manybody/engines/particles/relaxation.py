"""From any arrangement of atoms to one at rest in a minimum of the energy: starts that dynamics can begin from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy.spatial import cKDTree

from manybody.core.errors import TaskError
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.state import ParticleState
from manybody.numerics.minimise import Minimum, fire, l_bfgs

Minimiser = Literal["fire", "l-bfgs"]
MINIMISERS: dict[Minimiser, Callable[..., Minimum]] = {"fire": fire, "l-bfgs": l_bfgs}
SAME_PLACE = 1e-3  # sigma; a pair closer than this has energies above 1e36, beyond what double precision can add to others


def relax(
    engine: LiquidEngine, state: ParticleState, tolerance: float = 1e-3, minimiser: Minimiser = "fire", most_steps: int = 20_000
) -> ParticleState:
    """The state with its atoms moved downhill until no force exceeds `tolerance`; velocities and box stay as they are.

    FIRE stands overlapping starts and pairs that cross the cutoff; L-BFGS ends faster close to a minimum. Raises `TaskError`
    where an atom has no finite position, two lie at the same place, or `most_steps` do not suffice.
    """
    engine.refuse_narrow(state.box, state)
    _refuse_same_place(state)
    box = state.box

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        forces, energy, _, pairs = engine.evaluate(torch.from_numpy(x).to(box.device), box)
        return energy - engine.shift * pairs, forces.cpu().numpy()

    found = MINIMISERS[minimiser](evaluate, state.positions.cpu().numpy(), tolerance, most_steps=most_steps)
    if not found.converged:
        worst = int(np.argmax((found.forces**2).sum(axis=1)))
        raise TaskError(
            f"Minimisation by {minimiser} left a force of {found.largest_force:.3g} on atom {worst} after "
            f"{len(found.energies) - 1} steps; {tolerance:g} was asked for. Allow more steps, raise `tolerance`, or use `fire`."
        )
    return replace(state, positions=torch.from_numpy(found.positions).to(box.device) % box)


def _refuse_same_place(state: ParticleState) -> None:
    """Name the first atom without a finite position, or the first pair at the same place: no force could part them."""
    x, box = state.positions.cpu().numpy(), state.box.cpu().numpy()
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        raise TaskError(f"Step {state.step}: atom {int(np.argmin(finite))} has no finite position. Give it one.")
    pairs = cKDTree(x % box, boxsize=box).query_pairs(SAME_PLACE, output_type="ndarray")
    if len(pairs):
        first, second = sorted(int(atom) for atom in pairs[0])
        raise TaskError(f"Step {state.step}: atoms {first} and {second} are at the same place. Move one of them.")
