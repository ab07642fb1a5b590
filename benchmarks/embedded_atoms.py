"""Embedded atoms: energy, forces and stress of 500 copper atoms, beside ASE's own calculator.

Both read the same potential file and move the atoms by a hair before every call, so that nothing is remembered; both keep
their neighbour lists where they may. Milliseconds a call on one thread, so the ratio is ASE's time over ours.
"""

from __future__ import annotations

import time
from importlib.metadata import version

import numpy as np

from benchmarks.measure import Result, compare

CELLS, ROUNDS, CALLS, TARGET = 5, 5, 100, 100.0


def run() -> list[Result]:
    """One result."""
    from ase.build import bulk
    from ase.calculators.eam import EAM

    from manybody.engines.atoms.eam_file import read_eam
    from manybody.engines.atoms.energies.eam import EmbeddedAtomProvider
    from manybody.engines.atoms.energies.spec import COPPER, FILES

    generator = np.random.default_rng(1)
    atoms = bulk("Cu", a=3.61, cubic=True).repeat(CELLS)
    atoms.positions += generator.normal(scale=0.05, size=atoms.positions.shape)
    provider = EmbeddedAtomProvider(read_eam(FILES / COPPER))
    numbers, cell, pbc = np.array(atoms.numbers), np.array(atoms.cell), np.array(atoms.pbc)
    peer = atoms.copy()
    peer.calc = EAM(potential=str(FILES / COPPER))

    def ours() -> float:
        start = time.perf_counter()
        for call in range(CALLS):
            provider(atoms.positions + 1e-6 * call, numbers, cell, pbc)
        return 1e3 * (time.perf_counter() - start) / CALLS

    def theirs() -> float:
        start = time.perf_counter()
        peer.positions += 1e-6
        peer.get_forces()
        peer.get_stress()
        return 1e3 * (time.perf_counter() - start)

    expected = peer.get_forces()
    assert np.abs(provider(atoms.positions, numbers, cell, pbc).forces - expected).max() < 1e-10
    return [compare("embedded-atoms", "ms", TARGET, ours, theirs, version("ase"), ROUNDS, lower_is_better=True)]
