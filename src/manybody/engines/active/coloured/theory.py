"""What theory says of free or harmonically trapped Ornstein-Uhlenbeck particles at a point of a study. Torch-free.

The tolerance that comes with a value is four standard errors of one run, which are known exactly, correlations and all, and
the known truncation error of the time step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from manybody.core.dynamics import segments
from manybody.core.protocols import ClosedForm
from manybody.core.study import Point
from manybody.engines.active.coloured.known_answers import free_walk, scheme_walk, trapped_walk
from manybody.engines.active.coloured.spec import ActiveOrnsteinUhlenbeckParticles, ColouredNoiseDynamics

SIGMAS = 4.0  # standard errors of one run allowed between it and theory
TOLERANCE_FROM = f"{SIGMAS:g} standard errors of one run and the truncation error of the time step, both in closed form"
SZAMEL = "G. Szamel, Phys. Rev. E 90, 012111 (2014): a self-propelled particle, free and in a harmonic potential"
FODOR = (
    "E. Fodor et al., Phys. Rev. Lett. 117, 038103 (2016) (entropy production); L. L. Bonilla, Phys. Rev. E 100, 022601 (2019): "
    "at equilibrium where the potential has no third derivatives"
)


class Theory:
    """A linear system at a point: its walk, exact and as the scheme has it, and how many samples a run takes."""

    def __init__(self, system: ActiveOrnsteinUhlenbeckParticles, method: ColouredNoiseDynamics) -> None:
        stretch = method.stretch(method.segment)
        temperature, persistence, trap = system.active_temperature, system.persistence_time, system.trap
        self.system, self.samples = system, segments(method.duration, method.segment) * stretch.samples
        self.lag = stretch.stride * method.time_step
        if trap:
            self.exact = trapped_walk(temperature, persistence, trap, self.lag)
            self.ours = scheme_walk(temperature, persistence, trap, method.time_step, stretch.stride)
        else:
            self.exact = self.ours = free_walk(temperature, persistence, self.lag)

    def closed(self, form: np.ndarray, source: str) -> ClosedForm:
        """What the mean of u . A u is, u = (y', y) and y = (x, p) or, for free particles, (dx, p)."""
        value, truncated = self.exact.mean(form), self.ours.mean(form)
        tolerance = abs(truncated - value) + SIGMAS * self.exact.error(form, self.samples, self.system.particles)
        return ClosedForm(value, tolerance, TOLERANCE_FROM, source)

    @property
    def velocity(self) -> np.ndarray:
        """dx/dt = velocity . y."""
        return np.array([-self.system.trap, 1.0])


def typed(point: Point) -> tuple[ActiveOrnsteinUhlenbeckParticles, ColouredNoiseDynamics]:
    """The system and the method of a point."""
    assert isinstance(point.system, ActiveOrnsteinUhlenbeckParticles)
    assert isinstance(point.method, ColouredNoiseDynamics)
    return point.system, point.method


def mean_square_displacement(point: Point) -> ClosedForm | None:
    """4 T (t - tau (1 - exp(-t / tau))) of free particles, twice <x^2> - <x(t) x(0)> a component in a harmonic trap."""
    system, method = typed(point)
    if not system.linear:
        return None
    moved = np.array([1.0, 0.0, -1.0 if system.held else 0.0, 0.0])
    return Theory(system, method).closed(np.outer(moved, moved), SZAMEL)


def long_time_diffusivity(point: Point) -> ClosedForm | None:
    """<d_1^2 + 2 d_1 . d_2> / (4 lag T) of successive displacements of free particles."""
    system, method = typed(point)
    if not system.linear or system.held:
        return None
    theory = Theory(system, method)
    late, early = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 0.0])
    form = (np.outer(late, late) + 2 * np.outer(late, early)) / (4 * theory.lag * system.active_temperature)
    return theory.closed(form, SZAMEL)


def velocity_correlation(point: Point) -> ClosedForm | None:
    """<v(t) . v(0)>; 2 T / tau exp(-t / tau) of free particles."""
    system, method = typed(point)
    if not system.linear:
        return None
    theory = Theory(system, method)
    return theory.closed(np.outer(np.r_[theory.velocity, 0, 0], np.r_[0, 0, theory.velocity]), SZAMEL)


def effective_temperature(point: Point) -> ClosedForm | None:
    """T / (1 + k tau) in a harmonic trap."""
    system, method = typed(point)
    if not system.linear or not system.held:
        return None
    return Theory(system, method).closed(np.diag([0.5 * system.trap, 0.0, 0.0, 0.0]), SZAMEL)


def entropy_production(point: Point) -> ClosedForm | None:
    """Zero in a harmonic trap, <tr H> = 2 k of it being no matter of chance."""
    system, method = typed(point)
    if not system.linear or not system.held:
        return None
    theory, trap = Theory(system, method), system.trap
    tau, temperature, v = system.persistence_time, system.active_temperature, theory.velocity
    form = np.zeros((4, 4))
    form[:2, :2] = (tau * trap * np.outer([0.0, 1.0], v) + (tau * trap) ** 2 * np.outer(v, v)) / temperature
    return replace(theory.closed(form, FODOR), value=0.0)
