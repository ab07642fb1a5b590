"""Brownian dynamics of ions in a periodic cube and a constant field.

    dx_i = (F_i + E z_i e_x) dt + sqrt(2) dW_i,   F = - dU/dx of `numerics.clouds`; D = kT = Debye length = 1.

One step is Heun's: with the free displacement b_i = E z_i e_x dt + sqrt(2) dW_i, x' = x + b + dt/2 [F(x) + F(x + b + dt F(x))].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.electrolyte.known_answers import Structure
from manybody.engines.electrolyte.spec import DrivenElectrolyte
from manybody.engines.electrolyte.state import IonState
from manybody.engines.electrolyte.structure import ModeBins
from manybody.numerics.brownian import NOISE_CHUNK, gaussian_noise
from manybody.numerics.clouds import CloudMesh

BLOCK_NUMBERS = 1_000_000  # random numbers drawn at once, about: bounds the memory


@dataclass(frozen=True)
class Followed:
    """A state after some steps, and the mean over them of - z F_x: how strongly ions are held back, kT a Debye length."""

    state: IonState
    relaxation: float


class IonEngine:
    """Advances a driven electrolyte; passes `manybody.testing.engine`. Paths have the same bits however they are cut."""

    def __init__(self, system: DrivenElectrolyte, time_step: float, modes: int = 2) -> None:
        self.system, self.time_step = system, time_step
        coulomb = 4 * math.pi * system.coupling
        self.mesh = CloudMesh(system.ions, system.edge, system.width, coulomb, system.repulsion / system.density)
        self.bins = ModeBins.of(self.mesh.points, modes)

    def init(self, key: Key) -> IonState:
        """Ions at random."""
        positions = key.derive("start").generator().uniform(0, self.system.edge, (self.system.ions, 3))
        return IonState(positions, alternating_charges(self.system.ions), self.system.edge, np.zeros(3), key)

    def step(self, state: IonState, steps: int = 1) -> IonState:
        """The state `steps` time steps later. Raises `TaskError` where a position is no number."""
        return self.follow(state, steps).state

    def follow(self, state: IonState, steps: int) -> Followed:
        """The same, with what was seen on the way."""
        longest = max(1, BLOCK_NUMBERS // (3 * NOISE_CHUNK * self.system.ions)) * NOISE_CHUNK
        end, relaxation = state.step + steps, 0.0
        while state.step < end:
            block = min(longest - state.step % NOISE_CHUNK, end - state.step)
            followed = self.moved(state, gaussian_noise(state.key, state.step, block, self.system.ions))
            state = followed.state
            relaxation += followed.relaxation * block
        return Followed(state, relaxation / steps)

    def moved(self, state: IonState, noise: np.ndarray) -> Followed:
        """The state after as many time steps as `noise` [steps, ions, 3] has rows."""
        dt, x, held = self.time_step, state.positions, 0.0
        driven, spread = state.driven.copy(), math.sqrt(2 * dt)
        drift = dt * self.system.field * state.charges
        for row, numbers in enumerate(noise):
            free = spread * numbers
            driven += free.mean(axis=0)
            free[:, 0] += drift
            here, _ = self.mesh.evaluate(_finite(x, state.step + row), state.charges)
            held -= float(state.charges @ here[:, 0])
            there, _ = self.mesh.evaluate(_finite(x + free + dt * here, state.step + row), state.charges)
            x = x + free + (0.5 * dt) * (here + there)
        after = replace(state, positions=x, driven=driven, step=state.step + len(noise))
        return Followed(after, held / (len(noise) * self.system.ions))

    def structure(self, state: IonState) -> Structure:
        """Structure factors of the long modes, [bins] of `long_modes`."""
        return self.bins.structure(*self.mesh.modes(state.positions, state.charges), self.system.ions)

    def observables(self, state: IonState) -> dict[str, float]:
        """Energy an ion, force that holds ions back, current, S_n and S_c of the longest waves across."""
        forces, energy = self.mesh.evaluate(_finite(state.positions, state.step), state.charges)
        relaxation = -float(state.charges @ forces[:, 0]) / self.system.ions
        structure = self.structure(state)
        return {
            "energy": energy / self.system.ions,
            "relaxation": relaxation,
            "current": self.system.field - relaxation,
            "density": float(structure.density[0]),
            "charge": float(structure.charge[0]),
        }

    def conserved(self, state: IonState) -> dict[str, float]:
        """The mean position less the mean displacement by noise, each component."""
        x, y, z = (state.positions.mean(axis=0) - state.driven).tolist()
        return {"centre_x": x, "centre_y": y, "centre_z": z}

    def symmetric(self, state: IonState, key: Key) -> Iterator[tuple[str, IonState]]:
        """A random image of `state` under each symmetry of the system; translations are those of the mesh."""
        generator, x = key.generator(), state.positions
        cells = generator.integers(-self.mesh.points, self.mesh.points, 3)
        yield "translation", replace(state, positions=x + cells * (state.edge / self.mesh.points))
        order = generator.permutation(self.system.ions)
        yield "permutation", replace(state, positions=x[order], charges=state.charges[order])
        yield "turn about the field", replace(state, positions=x[:, [0, 2, 1]] * [1.0, -1.0, 1.0])
        yield "charge conjugation", replace(state, positions=x * [-1.0, 1.0, 1.0], charges=-state.charges)


def alternating_charges(ions: int) -> np.ndarray:
    """+1, -1, +1, ..: [ions]."""
    return np.where(np.arange(ions) % 2, -1.0, 1.0)


def _finite(positions: np.ndarray, step: int) -> np.ndarray:
    """The positions themselves. Raises `TaskError` where one of them is no number: the mesh has no place for it."""
    if not np.isfinite(positions).all():
        ion = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise TaskError(
            f"Step {step}: expected finite positions; ion {ion} has none. Lower `time_step`, or compute the task that this one "
            "goes on from again."
        )
    return positions
