"""The cost of a formula of one's own, and of a table, relative to the built-in Lennard-Jones potential.

One Lennard-Jones liquid of 4,000 atoms in NVE on one thread, from one equilibrated state: the built-in kernel, a kernel from
the same energy written in another way with parameters of its own, and its table. The built-in one is the peer; the ratio is
its time over ours, so that 1/1.1 is what a formula may cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.lennard_jones import equilibrated
from benchmarks.measure import Result, compare
from manybody import __version__
from manybody.engines.particles.engine import SKINS
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.numerics.integrators import NO_BATH
from manybody.numerics.pairs import LENNARD_JONES, PairKernel, PairPotential
from manybody.numerics.tables import Pieces, Table
from manybody.numerics.tabulated import table_kernel

SYSTEM = LennardJonesLiquid(temperature=0.72, density=0.8442, atoms=4000, cutoff=2.5)
OWN = PairPotential("own", "depth*(width**12/r2**6 - 2*width**6/r2**3)", ("depth", "width"))
STEP, STEPS, ROUNDS = 0.004, 400, 7
UNIT = "seconds for 400 steps"
TARGETS = {"formula": 1 / 1.1, "table": 0.4}


def kernels() -> dict[str, PairKernel]:
    """The same energy three times."""
    r = np.linspace(0.75, SYSTEM.cutoff, 1000)
    table = Table(r, 4 * (r**-12 - r**-6), 24 * (2 * r**-13 - r**-7))
    return {
        "built-in": LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0}),
        "formula": OWN.bind({"depth": 1.0, "width": 2 ** (1 / 6)}),
        "table": table_kernel(Pieces.of(table, SYSTEM.cutoff)),
    }


def run() -> list[Result]:
    """One result for the formula and one for the table."""
    start = equilibrated(SYSTEM)
    arrays = start.positions.numpy(), start.velocities.numpy(), start.box.numpy()
    nothing = np.empty((0, 1, 1)), np.empty(0)

    def seconds(kernel: PairKernel) -> Callable[[], float]:
        def measured() -> float:
            begin = time.perf_counter()
            among = SYSTEM.cutoff, SKINS, kernel.values
            atoms = kernel.module.start(*arrays, *among, 1)
            bath = NO_BATH, 1.0, SYSTEM.temperature, 3.0 * SYSTEM.atoms - 3
            *_, atom = kernel.module.advance(atoms, arrays[2], *among, STEP, *bath, *nothing, STEPS, np.empty((1, 8)), 1)
            assert atom < 0, "the run exploded"
            return time.perf_counter() - begin

        return measured

    made = kernels()
    built_in = seconds(made["built-in"])
    results = []
    for name, target in TARGETS.items():
        ours, title = seconds(made[name]), f"pair-potentials-{name}"
        results.append(compare(title, UNIT, target, ours, built_in, __version__, ROUNDS, lower_is_better=True))
    return results
