"""Dynamics of active Ornstein-Uhlenbeck particles in a periodic square or in traps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.active.coloured.known_answers import increments, trapped_walk
from manybody.engines.active.coloured.spec import ActiveOrnsteinUhlenbeckParticles
from manybody.engines.active.coloured.state import ColouredState
from manybody.engines.active.engine import CALL_NUMBERS, SKIN
from manybody.engines.active.known_answers import WELL
from manybody.engines.active.sites import Start, start_sites
from manybody.numerics.brownian import NOISE_CHUNK, evaluate, gaussian_noise
from manybody.numerics.coloured import add_trap, advance_coloured, hessian_product

NUMBERS = 4  # random numbers a particle and step


@dataclass(frozen=True)
class ColouredLook:
    """What is seen of a state; means over particles but for `velocities`, dx/dt [particles, 2].

    energy: of pairs and trap. trap_virial: -x . F / 2 of the trap, the effective temperature in a harmonic one.
    entropy_production: tau/T p . H v - tr H + tau^2/T |H v|^2, whose mean is the rate of entropy production
    (`known_answers`).
    """

    velocities: np.ndarray
    energy: float
    trap_virial: float
    entropy_production: float


class ColouredEngine:
    """Advances active Ornstein-Uhlenbeck particles; passes `manybody.testing.engine`. Same bits however a path is cut."""

    def __init__(self, system: ActiveOrnsteinUhlenbeckParticles, time_step: float, start: Start = "lattice") -> None:
        self.system, self.time_step, self.start = system, time_step, start
        self.skin = min(SKIN, system.edge / 2 - WELL) if system.repulsion else SKIN
        self.decay = math.exp(-time_step / system.persistence_time)
        self.carried = -system.persistence_time * math.expm1(-time_step / system.persistence_time)
        self.mixing = np.linalg.cholesky(increments(system.active_temperature, system.persistence_time, time_step))

    def init(self, key: Key) -> ColouredState:
        """Propulsions from their stationary distribution; sites as of any disks, or positions as in a harmonic trap."""
        system, generator = self.system, key.derive("start").generator()
        normal = generator.standard_normal((2, system.particles, 2))
        propulsions = math.sqrt(system.active_temperature / system.persistence_time) * normal[0]
        if system.trap:
            walk = trapped_walk(system.active_temperature, system.persistence_time, system.trap, 0.0)
            (x2, cross), (_, p2) = walk.covariance
            positions = cross / p2 * propulsions + math.sqrt(x2 - cross**2 / p2) * normal[1]
        elif system.anharmonicity:
            positions = np.zeros((system.particles, 2))
        else:
            sites = start_sites(system.particles, system.edge, self.start)
            positions = sites[np.sort(generator.permutation(len(sites))[: system.particles])]
        return ColouredState(positions, propulsions, system.edge, np.zeros(2), key)

    def step(self, state: ColouredState, steps: int = 1) -> ColouredState:
        """The state `steps` time steps later. Raises `TaskError` where the run explodes."""
        longest = max(1, CALL_NUMBERS // (NUMBERS * NOISE_CHUNK * self.system.particles)) * NOISE_CHUNK
        end = state.step + steps
        while state.step < end:
            block = min(longest - state.step % NOISE_CHUNK, end - state.step)
            state = self.moved(state, self.noise(state.key, state.step, block))
        return state

    def noise(self, key: Key, step: int, steps: int) -> np.ndarray:
        """The random numbers [steps, particles, 4] of `steps` time steps from `step` on."""
        return gaussian_noise(key, step, steps, self.system.particles, NUMBERS)

    def coarser(self, noise: np.ndarray, fine: ColouredEngine) -> np.ndarray:
        """The random numbers of half as many steps of this engine, twice as long, that make the same path of propulsion.

        Over two fine steps xi_x = xi_x1 + xi_x2 + tau (1 - e) xi_p1 and xi_p = e xi_p1 + xi_p2, with the fine step's e.
        """
        drawn = np.einsum("ab,sibc->siac", fine.mixing, noise.reshape(*noise.shape[:2], 2, 2))
        first, second = drawn[0::2], drawn[1::2]
        x = first[:, :, 0] + second[:, :, 0] + fine.carried * first[:, :, 1]
        p = fine.decay * first[:, :, 1] + second[:, :, 1]
        both = np.einsum("ab,sibc->siac", np.linalg.inv(self.mixing), np.stack([x, p], axis=2))
        return np.ascontiguousarray(both.reshape(len(first), noise.shape[1], NUMBERS))

    def moved(self, state: ColouredState, noise: np.ndarray) -> ColouredState:
        """The state after as many time steps as `noise` [steps, particles, 4] has rows."""
        system = self.system
        positions, propulsions, driven, failed, particle = advance_coloured(
            state.positions, state.propulsions, state.edge, system.repulsion, system.trap, system.anharmonicity,
            self.decay, self.carried, self.mixing, self.time_step, self.skin, noise,
        )  # fmt: skip
        if particle >= 0:
            raise TaskError(
                f"Step {state.step + failed}: particle {particle} moves further than half a diameter in one time step, or has "
                f"no finite position; the run has exploded. Lower `time_step` (now {self.time_step:g}), or start without "
                "overlapping particles."
            )
        driven = state.driven + driven
        return replace(state, positions=positions, propulsions=propulsions, driven=driven, step=state.step + len(noise))

    def look(self, state: ColouredState) -> ColouredLook:
        """Velocities, energy, the trap's virial, and entropy production."""
        system, x = self.system, state.positions
        forces, energy, _ = evaluate(x, state.edge, system.repulsion)
        pull = np.zeros_like(x)
        if system.held:
            add_trap(x, system.trap, system.anharmonicity, pull)
            r2 = (x**2).sum(axis=1)
            energy += float((0.5 * system.trap * r2 + 0.25 * system.anharmonicity * r2**2).sum())
        velocities = state.propulsions + forces + pull
        bent, trace = hessian_product(x, velocities, state.edge, system.repulsion, system.trap, system.anharmonicity)
        tau, count = system.persistence_time, system.particles
        flow = tau * float((state.propulsions * bent).sum()) + tau**2 * float((bent * bent).sum())
        virial = -0.5 * float((x * pull).sum())
        return ColouredLook(velocities, energy / count, virial / count, (flow / system.active_temperature - trace) / count)

    def observables(self, state: ColouredState) -> dict[str, float]:
        """Energy and entropy production a particle, the mean square of velocity and propulsion, and the trap's virial."""
        look = self.look(state)
        return {
            "energy": look.energy,
            "square_velocity": float((look.velocities**2).sum(axis=1).mean()),
            "square_propulsion": float((state.propulsions**2).sum(axis=1).mean()),
            "trap_virial": look.trap_virial,
            "entropy_production": look.entropy_production,
        }

    def conserved(self, state: ColouredState) -> dict[str, float]:
        """Without a trap, the mean position less the mean displacement by propulsion, each component."""
        if self.system.held:
            return {}
        x, y = (state.positions.mean(axis=0) - state.driven).tolist()
        return {"centre_x": x, "centre_y": y}

    def symmetric(self, state: ColouredState, key: Key) -> Iterator[tuple[str, ColouredState]]:
        """A random image of `state` under each symmetry of the system; translation where nothing is held."""
        generator, x, p = key.generator(), state.positions, state.propulsions
        if not self.system.held:
            yield "translation", replace(state, positions=x + generator.uniform(-state.edge, state.edge, 2))
        order = generator.permutation(self.system.particles)
        yield "permutation", replace(state, positions=x[order], propulsions=p[order])
        turn, mirror = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.diag([-1.0, 1.0])
        yield "right angle", replace(state, positions=x @ turn, propulsions=p @ turn)
        yield "reflection", replace(state, positions=x @ mirror, propulsions=p @ mirror)
