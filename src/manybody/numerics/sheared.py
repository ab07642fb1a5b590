"""Homogeneous shear of particles of mass 1: the SLLOD equations, with their kinetic energy held fixed or not.

    dr/dt = v + rate y e_x,      dv/dt = f - rate v_y e_x - alpha v,

v being the velocity relative to the flow u = rate y e_x. Either alpha = 0, or alpha is Gauss's multiplier that keeps the
kinetic energy: a thermostat that heats and cools without delay and knows of the flow only that it is linear. A step of
length dt is the symmetric product, of order dt^2,

    kick(dt/2)  strain(dt/2)  drift(dt)  strain(dt/2)  kick(dt/2),

each of whose parts is solved exactly. At rest and without the thermostat it is velocity Verlet. The energy changes by

    dE = work + heat,    d(work)/dt = -rate (sum v_x v_y + sum over pairs f_x r_y) = rate sigma_xy V,

and both are summed up part by part, so that E - work - heat is conserved to order dt^2.

Sources: D. J. Evans and G. P. Morriss, Statistical Mechanics of Nonequilibrium Liquids, 2nd ed. (2008), section 6.3
(SLLOD); G. Pan, J. F. Ely, C. McCabe and D. J. Isbister, J. Chem. Phys. 122, 094114 (2005) (this splitting, with the drift
outermost); F. Zhang, J. Chem. Phys. 106, 6102 (1997) (the isokinetic kick).
"""

from __future__ import annotations

import math

import numpy as np

from manybody.numerics.jit import kernel


@kernel
def isokinetic_kick(v: np.ndarray, f: np.ndarray, time: float) -> float:
    """dv/dt = f - alpha v with alpha = f.v/v^2, solved for constant f, in place; returns the heat taken up. [3, atoms].

    With a = f.v/v^2 and b^2 = f^2/v^2 at the beginning: v(t) = (v + s f) / c, s = sinh(b t)/b + 2 a sinh(b t/2)^2/b^2,
    c = cosh(b t) + a sinh(b t)/b = exp of the integral of alpha. The forces do the work v^2 ln c, which is carried off.
    """
    ff = fv = vv = 0.0
    for d in range(3):
        for i in range(v.shape[1]):
            ff += f[d, i] * f[d, i]
            fv += f[d, i] * v[d, i]
            vv += v[d, i] * v[d, i]
    if not ff > 0.0:
        return 0.0
    a, b = fv / vv, math.sqrt(ff / vv)
    half = math.sinh(0.5 * b * time)
    rise = math.sinh(b * time) / b
    push, growth = rise + 2.0 * a * half * half / (b * b), math.cosh(b * time) + a * rise
    for d in range(3):
        for i in range(v.shape[1]):
            v[d, i] = (v[d, i] + push * f[d, i]) / growth
    return -vv * math.log(growth)


@kernel
def strain_velocities(v: np.ndarray, strain: float, isokinetic: bool) -> tuple[float, float]:
    """dv_x/dt = -rate v_y over a time in which the strain grows by `strain`, in place; returns work and heat.

    Where the kinetic energy is held fixed, velocities are scaled back to it.
    """
    if strain == 0.0:
        return 0.0, 0.0
    before = after = 0.0
    for i in range(v.shape[1]):
        rest = v[1, i] * v[1, i] + v[2, i] * v[2, i]
        before += v[0, i] * v[0, i] + rest
        v[0, i] -= strain * v[1, i]
        after += v[0, i] * v[0, i] + rest
    work = 0.5 * (after - before)
    if not isokinetic:
        return work, 0.0
    factor = math.sqrt(before / after)
    for d in range(3):
        for i in range(v.shape[1]):
            v[d, i] *= factor
    return work, -work


@kernel
def sheared_drift(x: np.ndarray, v: np.ndarray, rate: float, time: float) -> None:
    """dr/dt = v + rate y e_x for constant v, in place: x grows by v_x t + rate (y t + v_y t^2 / 2)."""
    for i in range(v.shape[1]):
        x[0, i] += time * v[0, i] + rate * time * (x[1, i] + 0.5 * time * v[1, i])
        x[1, i] += time * v[1, i]
        x[2, i] += time * v[2, i]
