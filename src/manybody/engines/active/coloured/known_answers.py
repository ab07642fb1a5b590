"""Closed forms of active Ornstein-Uhlenbeck particles in a plane, free or in a harmonic trap. Torch-free.

With the mobility 1, dx = (p - k x) dt and <p_a(t) p_b(0)> = delta_ab T / tau exp(-t / tau). A free particle has

    <|x(t) - x(0)|^2> = 4 T (t - tau (1 - exp(-t / tau)));

in the trap each component of (x, p) is Gaussian with <x^2> = T / (k (1 + k tau)), <x p> = T / (1 + k tau), <p^2> = T / tau. So
the trap sees the effective temperature T / (1 + k tau) (G. Szamel, Phys. Rev. E 90, 012111 (2014)).

Reversing time in the weight of a path, exp(-1/(4 T) int |tau a + v + (1 + tau v.grad) grad Phi|^2), with v = dx/dt and
a = dv/dt, gives the rate of entropy production sigma = -tau^2 / T <a . H v> (Stratonovich), H the second derivatives of Phi:
all other terms are time derivatives. With p in place of a it is

    sigma = tau / T <p . H v> - <tr H> + tau^2 / T <|H v|^2>,

and by parts tau^2 / (2 T) <(v.grad)^3 Phi> (E. Fodor et al., Phys. Rev. Lett. 117, 038103 (2016)). It is zero where Phi has no
third derivatives: there, and only there, the particles are at equilibrium (L. L. Bonilla, Phys. Rev. E 100, 022601 (2019)).

Everything measured here is a quadratic form in Gaussian variables that are linear in their own past. So are the means that the
scheme gives at a finite time step, and the variance of a mean over correlated samples:
<u.A u u'.A u'> - <u.A u>^2 = 2 tr(A C A C^T), C = <u u'^T> (L. Isserlis, Biometrika 12, 134 (1918)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def mean_square_displacement(temperature: float, persistence: float, time: float) -> float:
    """4 T (t - tau (1 - exp(-t / tau))), of free particles."""
    return 4 * temperature * (time + persistence * math.expm1(-time / persistence))


def effective_temperature(temperature: float, persistence: float, trap: float) -> float:
    """T / (1 + k tau) = k <x^2>."""
    return temperature / (1 + trap * persistence)


@dataclass(frozen=True)
class Walk:
    """One component of y = (x, p) seen at equal intervals, y' = step y + noise; x is the displacement where nothing traps.

    step, covariance: [2, 2]. Components and particles are independent and alike.
    """

    step: np.ndarray
    covariance: np.ndarray

    def mean(self, form: np.ndarray) -> float:
        """<u . A u> over both components, u = (y', y); A is `form`, [4, 4]."""
        return 2 * float(np.trace(_even(form) @ self._joint()))

    def error(self, form: np.ndarray, samples: int, particles: int) -> float:
        """Standard deviation of the mean of u . A u over `samples` successive samples and all particles."""
        even, both = _even(form), self._joint()
        # u'' = (y'', y') from u' = (y', y): y' is what u'' repeats.
        onward = np.block([[self.step, np.zeros((2, 2))], [np.eye(2), np.zeros((2, 2))]])
        variance = 0.0
        for lag in range(samples):
            apart = 2 * float(np.trace(even @ both @ even @ both.T))
            variance += (2 if lag else 1) * (samples - lag) * apart
            if lag > 1 and apart < 1e-12 * variance / samples:
                break
            both = onward @ both
        return math.sqrt(2 * variance / particles) / samples

    def _joint(self) -> np.ndarray:
        """<u u^T>, [4, 4]."""
        ahead = self.step @ self.covariance
        return np.block([[self.covariance, ahead], [ahead.T, self.covariance]])


def _even(form: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (form + form.T))


def free_walk(temperature: float, persistence: float, time: float) -> Walk:
    """Displacements over successive intervals, and the propulsion at their ends."""
    left = -math.expm1(-time / persistence)
    step = np.array([[0.0, persistence * left], [0.0, 1 - left]])
    squared = mean_square_displacement(temperature, persistence, time) / 2
    return Walk(step, np.array([[squared, temperature * left], [temperature * left, temperature / persistence]]))


def trapped_walk(temperature: float, persistence: float, trap: float, time: float) -> Walk:
    """Positions and propulsions in a harmonic trap."""
    rate = trap - 1 / persistence
    slow, fast = math.exp(-trap * time), math.exp(-time / persistence)
    mixed = slow * (math.expm1(rate * time) / rate if abs(rate * time) > 1e-9 else time)
    soft = effective_temperature(temperature, persistence, trap)
    covariance = np.array([[soft / trap, soft], [soft, temperature / persistence]])
    return Walk(np.array([[slow, mixed], [0.0, fast]]), covariance)


def increments(temperature: float, persistence: float, time: float) -> np.ndarray:
    """Covariance [2, 2] of (xi_x, xi_p), what a time adds to x and p at random (`numerics.coloured`).

    <xi_x^2> is a difference of nearly equal numbers where time << persistence; there its series 2 T tau (y^3/3 - y^4/4 +
    7 y^5/60) is used, y = time / persistence, whose next term is y^6/24.
    """
    y = time / persistence
    left = -math.expm1(-y)  # 1 - e
    series = 2 * (y**3 / 3 - y**4 / 4 + 7 * y**5 / 60)
    xx = temperature * persistence * (series if y < 1e-3 else 2 * y - 2 * left - left * left)
    xp, pp = temperature * left * left, temperature / persistence * left * (2 - left)
    return np.array([[xx, xp], [xp, pp]])


def scheme_walk(temperature: float, persistence: float, trap: float, time_step: float, steps: int) -> Walk:
    """The same in the stationary state of the scheme of `numerics.coloured`, seen every `steps` time steps.

    One step is x' = a x + b I with a = 1 - h k + (h k)^2 / 2, b = 1 - h k / 2; the covariance solves S = G S G^T + Q.
    """
    decay, pull = math.exp(-time_step / persistence), time_step * trap
    a, b = 1 - pull + pull**2 / 2, 1 - pull / 2
    (xx, xp), _ = increments(temperature, persistence, time_step)
    g, p2 = b * persistence * (1 - decay), temperature / persistence
    cross = (g * decay * p2 + b * xp) / (1 - a * decay)
    x2 = (2 * a * g * cross + g**2 * p2 + b**2 * xx) / (1 - a**2)
    step = np.linalg.matrix_power(np.array([[a, g], [0.0, decay]]), steps)
    return Walk(step, np.array([[x2, cross], [cross, p2]]))
