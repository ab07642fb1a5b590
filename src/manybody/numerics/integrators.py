"""Symmetric splitting of Newton's equations with a heat bath at mid-step (BAOAB), for particles of mass 1.

One step of length dt is B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2):

- B, kick: v += dt/2 f.
- A, drift: x += dt/2 v.
- O, heat bath: velocities change so that the Maxwell distribution stays what it is; positions do not.

Without O it is velocity Verlet. With O in the middle the sampled configurations have errors of high order in dt, and
none for a harmonic force (B. Leimkuhler and C. Matthews, J. Chem. Phys. 138, 174102 (2013)). The heat that O hands
over is summed up: the energy less that heat is conserved to order dt^2 (G. Bussi and M. Parrinello, Phys. Rev. E 75,
056707 (2007)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manybody.core.random import Key
from manybody.numerics.jit import kernel

NO_BATH, RESCALING, LANGEVIN = 0, 1, 2
LONGEST_STEP = 0.5  # no atom of a sound run moves this far, in length units, in one step


@kernel
def rescaling_factor(kinetic: float, freedom: float, kT: float, decay: float, normal: float, chi2: float) -> float:
    """The factor on all velocities of stochastic velocity rescaling, over a time with exp(-t/tau) = `decay`.

    `normal` is a standard normal number R, `chi2` a chi-square one with freedom - 1 degrees of freedom S. With
    K = freedom kT / 2 and c = decay, eq. (A7) of G. Bussi, D. Donadio and M. Parrinello, J. Chem. Phys. 126, 014101
    (2007):

        a^2 = c + (1 - c) (R^2 + S) kT / (2 kinetic) + 2 R sqrt(c (1 - c) kT / (2 kinetic)),

    the sign that of R + sqrt(2 c kinetic / ((1 - c) kT)).
    """
    share = (1.0 - decay) * kT / (2.0 * kinetic)
    root = normal * math.sqrt(share) + math.sqrt(decay)
    size = math.sqrt(root * root + share * chi2)
    return size if root >= 0.0 else -size


@kernel
def kinetic_energy(v: np.ndarray) -> float:
    """Half the sum of squared velocities [3, atoms]."""
    total = 0.0
    for d in range(3):
        for i in range(v.shape[1]):
            total += v[d, i] * v[d, i]
    return 0.5 * total


@kernel
def kick(v: np.ndarray, f: np.ndarray, time: float) -> None:
    """B: velocities change by the force times `time`, in place; [3, atoms]."""
    for d in range(3):
        for i in range(v.shape[1]):
            v[d, i] += time * f[d, i]


@kernel
def drift(x: np.ndarray, v: np.ndarray, time: float) -> None:
    """A: positions change by the velocity times `time`, in place; [3, atoms]."""
    for d in range(3):
        for i in range(v.shape[1]):
            x[d, i] += time * v[d, i]


@kernel
def kick_and_drift(x: np.ndarray, v: np.ndarray, f: np.ndarray, dt: float) -> None:
    """B(dt/2) then A(dt/2) in one pass over memory, in place."""
    for d in range(3):
        for i in range(v.shape[1]):
            v[d, i] += 0.5 * dt * f[d, i]
            x[d, i] += 0.5 * dt * v[d, i]


@kernel
def heat_bath(
    v: np.ndarray, names: np.ndarray, bath: int, decay: float, kT: float, freedom: float, noise: np.ndarray, chi2: np.ndarray,
    step: int,
) -> float:  # fmt: skip
    """O: exchange heat with the bath over one step, in place; returns the heat taken up.

    noise: [steps, 1, 1] for rescaling, [steps, atoms, 3] by atom name for Langevin; chi2: [steps].
    """
    if bath == NO_BATH:
        return 0.0
    before = kinetic_energy(v)
    if bath == RESCALING:
        factor = rescaling_factor(before, freedom, kT, decay, noise[step, 0, 0], chi2[step])
        for d in range(3):
            for i in range(v.shape[1]):
                v[d, i] *= factor
        return before * (factor * factor - 1.0)
    width = math.sqrt((1.0 - decay * decay) * kT)
    for i in range(v.shape[1]):
        for d in range(3):
            v[d, i] = decay * v[d, i] + width * noise[step, names[i], d]
    return kinetic_energy(v) - before


@kernel
def runaway(x: np.ndarray, v: np.ndarray, f: np.ndarray, dt: float) -> int:
    """The first atom that flies further than `LONGEST_STEP` in a step, or whose position, velocity or force is no number.

    -1 when there is none. The force counts through the velocity that it would cause.
    """
    for i in range(x.shape[1]):
        speed2 = distance = 0.0
        for d in range(3):
            fast = abs(v[d, i]) + 0.5 * dt * abs(f[d, i])
            speed2 += fast * fast
            distance += abs(x[d, i])
        if not speed2 * dt * dt < LONGEST_STEP * LONGEST_STEP or not distance < math.inf:
            return i
    return -1


@dataclass(frozen=True)
class HeatBath:
    """What O does: kind (`NO_BATH`, `RESCALING`, `LANGEVIN`), temperature kT, relaxation time, degrees of freedom.

    For rescaling `time` is that of the kinetic energy; for Langevin it is 1 / friction.
    """

    kind: int
    kT: float
    time: float
    freedom: float

    def decay(self, dt: float) -> float:
        """exp(-dt / time)."""
        return math.exp(-dt / self.time)

    def noise(self, key: Key, step: int, steps: int, atoms: int) -> tuple[np.ndarray, np.ndarray]:
        """The random numbers of `steps` steps from `step` on, as `heat_bath` takes them.

        They are drawn in chunks of fixed length, each from a key of its own: a step gets the same numbers whichever
        way a run is cut into blocks.
        """
        if self.kind == NO_BATH:
            return np.empty((0, 1, 1)), np.empty(0)
        rows, chunk = ((atoms, 3), 4) if self.kind == LANGEVIN else ((1, 1), 256)
        normals, squares = [], []
        for index in range(step // chunk, -(-(step + steps) // chunk)):
            generator = key.derive("heat bath", index).generator()
            normals.append(generator.standard_normal((chunk, *rows)))
            if self.kind == RESCALING:
                squares.append(generator.chisquare(self.freedom - 1, chunk) if self.freedom > 1 else np.zeros(chunk))
        first = step % chunk
        chi2 = np.concatenate(squares)[first : first + steps] if squares else np.empty(0)
        return np.concatenate(normals)[first : first + steps], chi2
