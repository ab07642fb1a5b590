"""Langevin dynamics of a molecule in vacuum, with rigid bonds and a bias along collective variables, in one compiled call.

A step of length dt is B(dt/2) A(dt/2) O(dt) A(dt/2) B(dt/2), as `numerics.integrators` has them; each part ends on the rigid
bonds, in positions and velocities. Source: B. Leimkuhler and C. Matthews, Proc. R. Soc. A 472, 20160138 (2016), "g-BAOAB".

The forces are those of `numerics.bonded` and of all pairs of `numerics.nonbonded`, by the same kernels; what is new is that
nothing between them is Python, where a step of twenty atoms would spend nine tenths of its time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from manybody.numerics.bias import read_hills
from manybody.numerics.bonded import bend, stretch, turn
from manybody.numerics.collective import look, wrapped
from manybody.numerics.constraints import MOST_SWEEPS, TOLERANCE, rattle, shake
from manybody.numerics.jit import exact_kernel
from manybody.numerics.nonbonded import listed_pairs

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NO_CUTOFF = 1e30
SOUND, TORN, EXPLODED = 0, 1, 2  # how a stretch ended
_HARMONIC_BOND, _HARMONIC_ANGLE, _PERIODIC_TORSION = 0, 2, 3  # numbers of the forms in `numerics.bonded`


class Terms(NamedTuple):
    """All that acts between the atoms of a molecule, as arrays.

    masses [atoms]; bonds [n, 2] of (k, length), angles [n, 3] of (k, angle), torsions [n, 4] of (k, n, phase); pairs [n, 2]
    with Coulomb products and Lennard-Jones coefficients [n]; rigid bonds [n, 2] of lengths [n].
    """

    masses: Array
    bonds: Indices
    bond_parameters: Array
    angles: Indices
    angle_parameters: Array
    torsions: Indices
    torsion_parameters: Array
    pairs: Indices
    products: Array
    c12: Array
    c6: Array
    rigid: Indices
    lengths: Array


class Bias(NamedTuple):
    """What is added along collective variables `kinds` [variables] of `atoms` [variables, 4].

    Where `stiffness` [variables] is given, restraints about `centres`, which move by `pace` [variables] each step, the
    shorter way round where `periodic`. Where `grid` [nodes, nodes, 4] is given, hills over one or two torsions. Either is
    empty where there is none.
    """

    kinds: Indices
    atoms: Indices
    periodic: NDArray[np.bool_]
    centres: Array
    stiffness: Array
    pace: Array
    grid: Array


@exact_kernel
def evaluate(x: Array, terms: Terms, f: Array) -> float:
    """The energy of the molecule at x [atoms, 3]; forces go into f [atoms, 3]."""
    f[:] = 0.0
    energy = stretch(_HARMONIC_BOND, x, terms.bonds, terms.bond_parameters, f)
    energy += bend(_HARMONIC_ANGLE, x, terms.angles, terms.angle_parameters, f)
    energy += turn(_PERIODIC_TORSION, x, terms.torsions, terms.torsion_parameters, f)
    lennard_jones, coulomb, _ = listed_pairs(
        x, terms.pairs, terms.products, terms.c12, terms.c6, NO_CUTOFF, NO_CUTOFF, 0.0, 0.0, f, 1.0
    )
    return energy + lennard_jones + coulomb


@exact_kernel
def _restraints(bias: Bias, values: Array, slopes: Array) -> float:
    """The energy of the restraints at values [variables], and its derivatives."""
    energy = 0.0
    for n in range(bias.stiffness.size):
        apart = values[n] - bias.centres[n]
        if bias.periodic[n]:
            apart = wrapped(apart)
        energy += 0.5 * bias.stiffness[n] * apart * apart
        slopes[n] = bias.stiffness[n] * apart
    return energy


@exact_kernel
def _shift_centres(values: Array, bias: Bias) -> float:
    """Move the centres of the restraints by their pace; returns the work that takes at values [variables]."""
    slopes = np.empty(bias.pace.size)
    before = _restraints(bias, values, slopes)
    for n in range(bias.pace.size):
        bias.centres[n] += bias.pace[n]
    return _restraints(bias, values, slopes) - before


@exact_kernel
def add_bias(x: Array, bias: Bias, values: Array, f: Array) -> float:
    """The energy of the bias at x [atoms, 3]; its forces are added to f, the variables go into values [variables or 2]."""
    variables = bias.kinds.size
    gradients, slopes = np.zeros((variables, 4, 3)), np.zeros(max(2, variables))
    look(x, bias.kinds, bias.atoms, values, gradients)
    energy = _restraints(bias, values, slopes)
    if bias.grid.size > 0:
        energy += read_hills(bias.grid, values, slopes)
    for n in range(variables):
        for m in range(4):  # a variable of fewer atoms names its first again, with no gradient there
            for d in range(3):
                f[bias.atoms[n, m], d] -= slopes[n] * gradients[n, m, d]
    return energy


@exact_kernel
def _kinetic(v: Array, masses: Array) -> float:
    total = 0.0
    for i in range(v.shape[0]):
        total += masses[i] * (v[i, 0] * v[i, 0] + v[i, 1] * v[i, 1] + v[i, 2] * v[i, 2])
    return 0.5 * total


@exact_kernel
def _kick(x: Array, v: Array, f: Array, terms: Terms, time: float) -> bool:
    """B: velocities change by force over mass times `time`, in place; whether the rigid bonds could be kept."""
    for i in range(v.shape[0]):
        for d in range(3):
            v[i, d] += time * f[i, d] / terms.masses[i]
    return rattle(x, v, terms.rigid, terms.lengths, terms.masses, TOLERANCE, MOST_SWEEPS) < 0


@exact_kernel
def _drift(x: Array, v: Array, terms: Terms, time: float, before: Array, free: Array) -> bool:
    """A: positions change by velocity times `time`, in place; what the rigid bonds took is handed to the velocities."""
    for i in range(v.shape[0]):
        for d in range(3):
            before[i, d] = x[i, d]
            x[i, d] += time * v[i, d]
            free[i, d] = x[i, d]
    if terms.lengths.size == 0:
        return True
    if shake(before, x, terms.rigid, terms.lengths, terms.masses, TOLERANCE, MOST_SWEEPS) >= 0:
        return False
    for i in range(v.shape[0]):
        for d in range(3):
            v[i, d] += (x[i, d] - free[i, d]) / time
    return rattle(x, v, terms.rigid, terms.lengths, terms.masses, TOLERANCE, MOST_SWEEPS) < 0


@exact_kernel
def _bathe(x: Array, v: Array, terms: Terms, decay: float, kT: float, noise: Array) -> bool:
    """O: velocities forget by `decay` and are given noise [atoms, 3] of the Maxwell distribution, in place."""
    for i in range(v.shape[0]):
        width = math.sqrt((1.0 - decay * decay) * kT / terms.masses[i])
        for d in range(3):
            v[i, d] = decay * v[i, d] + width * noise[i, d]
    return rattle(x, v, terms.rigid, terms.lengths, terms.masses, TOLERANCE, MOST_SWEEPS) < 0


@exact_kernel
def _is_sound(v: Array, energy: float, dt: float, longest: float) -> bool:
    fastest = 0.0
    for i in range(v.shape[0]):
        fastest = max(fastest, v[i, 0] * v[i, 0] + v[i, 1] * v[i, 1] + v[i, 2] * v[i, 2])
    return math.isfinite(energy) and fastest * dt * dt < longest * longest


@exact_kernel
def _move(
    x: Array, v: Array, terms: Terms, dt: float, decay: float, kT: float, noise: Array, before: Array, free: Array
) -> tuple[bool, float]:
    """A(dt/2) O(dt) A(dt/2), or A(dt) where there is no bath, in place; whether it could be done, and the heat taken up."""
    parts, heat = (1 if decay >= 1.0 else 2), 0.0
    for part in range(parts):
        if part == 1:
            heat -= _kinetic(v, terms.masses)
            if not _bathe(x, v, terms, decay, kT, noise):
                return False, heat
            heat += _kinetic(v, terms.masses)
        if not _drift(x, v, terms, dt / parts, before, free):
            return False, heat
    return True, heat


@exact_kernel
def advance(
    x: Array, v: Array, values: Array, terms: Terms, bias: Bias, noise: Array, dt: float, decay: float, kT: float, longest: float
) -> tuple[int, int, float, float, float, float]:
    """Advance positions x and velocities v [atoms, 3] by as many steps as noise [steps, atoms, 3] has, in place.

    decay is exp(-dt / relaxation time) of the bath, 1 where there is none. values [variables or 2] are the collective
    variables at the end; moving centres of `bias` move in place, after each step's drift. Forces are computed afresh first,
    so that x, v and the bias determine every later bit. Returns how it ended (`SOUND`; `TORN`: a rigid bond could not be
    kept; `EXPLODED`: an atom flew further than `longest` in a step, or the energy is no number), the steps done by then,
    energy of the molecule, energy of the bias, heat taken up from the bath, and work done by the moving centres.
    """
    f, before, free = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    energy = biased = heat = work = 0.0
    for step in range(-1, noise.shape[0]):  # what comes before the first step is the forces alone
        kept = True
        if step >= 0:
            kept = _kick(x, v, f, terms, 0.5 * dt)
            moved, gained = _move(x, v, terms, dt, decay, kT, noise[step], before, free)
            kept, heat = kept and moved, heat + gained
        energy = evaluate(x, terms, f)
        biased = add_bias(x, bias, values, f)
        if step >= 0 and not (kept and _kick(x, v, f, terms, 0.5 * dt)):
            return TORN, step, energy, biased, heat, work
        if not _is_sound(v, energy + biased, dt, longest):
            return EXPLODED, max(step, 0), energy, biased, heat, work
        if bias.pace.size > 0 and step >= 0:
            work += _shift_centres(values, bias)
    return SOUND, noise.shape[0], energy, biased, heat, work
