"""Energy drift of velocity Verlet at constant energy, in kT a degree of freedom and nanosecond of argon.

256 particles at T = 0.9, density 0.75, one nanosecond (464 tau) at each time step. The Lennard-Jones potential ends smoothly:
energy and force vanish at 2.5 sigma (S. D. Stoddard and J. Ford, Phys. Rev. A 8, 1504 (1973)). Where it is merely cut, each
pair that crosses the cutoff changes the energy by a random bit of the order of the jump of the force times the step, and the
energy walks away: that is measured beside it. Drifts are slopes of straight lines; nothing here is a speed.
"""

from __future__ import annotations

import numpy as np

from benchmarks.measure import Result
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.numerics.integrators import NO_BATH, RESCALING, HeatBath
from manybody.numerics.pairs import LENNARD_JONES, PairKernel, PairPotential

NAME = "energy-drift"
TARGET = 1e-6
PICOSECONDS = 2.156  # a tau of argon: 3.405 angstrom, 119.8 K, 39.948 u
STEPS = (0.004, 0.002, 0.001)
SYSTEM = LennardJonesLiquid(temperature=0.9, density=0.75, atoms=256, cutoff=2.5)
SKINS = (0.8, 0.35)
STRIDE = 50
SMOOTH = PairPotential(
    "lennard-jones-smooth", "4*epsilon*((sigma/r)**12 - (sigma/r)**6) + slope*r2 + lift", ("epsilon", "sigma", "slope", "lift")
)


def kernels() -> dict[str, PairKernel]:
    """The potential that is cut and shifted, and the one that ends smoothly."""
    rc = SYSTEM.cutoff
    slope = 4 * (12 * rc**-12 - 6 * rc**-6) / (2 * rc**2)  # takes the force to zero
    lift = -4 * (rc**-12 - rc**-6) - slope * rc**2
    unit = {"epsilon": 1.0, "sigma": 1.0}
    return {"cut": LENNARD_JONES.bind(unit), "smooth": SMOOTH.bind(unit | {"slope": slope, "lift": lift})}


def advance(
    kernel: PairKernel, x: np.ndarray, v: np.ndarray, dt: float, samples: int, bath: HeatBath
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, velocities and rows (`pair_template.advance`) after ``samples * STRIDE`` steps."""
    noise, chi2 = bath.noise(Key.from_seed(1), 0, samples * STRIDE, len(x))
    rows = np.empty((samples, 8))
    box = np.full(3, SYSTEM.box)
    x, v, step, _ = kernel.module.advance(
        x, v, box, SYSTEM.cutoff, SKINS, kernel.values, dt, bath.kind, bath.decay(dt), bath.kT, bath.freedom,
        noise, chi2, STRIDE, rows, 1,
    )  # fmt: skip
    assert step < 0, "the run exploded"
    return x, v, rows


def drift(kernel: PairKernel, dt: float, nanoseconds: float = 1.0) -> float:
    """Slope of the energy, kT a degree of freedom and nanosecond."""
    state = LiquidEngine(SYSTEM).init(Key.from_seed(2))
    freedom = 3 * SYSTEM.atoms - 3.0
    x, v = state.positions.numpy(), state.velocities.numpy()
    for kT in (2.0, SYSTEM.temperature):
        x, v, _ = advance(kernel, x, v, 0.004, 100, HeatBath(RESCALING, kT, 0.3, freedom))
    span = nanoseconds * 1e3 / PICOSECONDS
    samples = max(3, round(span / (dt * STRIDE)))
    _, _, rows = advance(kernel, x, v, dt, samples, HeatBath(NO_BATH, SYSTEM.temperature, 1.0, freedom))
    energy = (rows[:, 0] - kernel.energy(SYSTEM.cutoff) * rows[:, 2] + rows[:, 3]) / (freedom * SYSTEM.temperature)
    time = np.arange(samples) * dt * STRIDE * PICOSECONDS / 1e3
    return float(np.polyfit(time - time.mean(), energy, 1)[0])


def run() -> list[Result]:
    """One result a potential and time step, the target being an upper limit of the size."""
    found = {(name, dt): drift(kernel, dt) for name, kernel in kernels().items() for dt in STEPS}
    unit = "kT a degree of freedom and ns"
    return [
        Result(f"{NAME} {name} dt={dt:g}", value, None, None, unit, None, TARGET, 0.0, 0.0, True)
        for (name, dt), value in found.items()
    ]
