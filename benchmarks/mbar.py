"""MBAR: free energies and their errors from the same reduced energies at the same tolerance, ours beside pymbar's.

Two cases: windows of umbrella sampling on a torus, of which a sample is within reach of a few; and states along one
coupling, which all reach each other. Each is solved from zeros to 1e-10 kT, and the solutions are compared first. Ours is
beside pymbar's adaptive solver and beside the protocol that it takes by default (1e-12), all in one process on all cores.
Times are seconds, so the ratio is pymbar's over ours.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import Result, compare
from manybody.numerics.mbar import mixture

NAME = "mbar"
ROUNDS, AGREE, TARGETS = 3, 1e-7, {"umbrella": 8.0, "coupling": 3.0}
ADAPTIVE = ({"method": "adaptive", "tol": 1e-10, "options": {"maxiter": 1000}},)


def umbrella(side: int = 10, samples: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Reduced energies [windows, samples] of restraints about a grid on a torus, and samples of each: even ground."""
    generator, spacing = np.random.default_rng(1), 2 * np.pi / side
    stiffness = 4.0 / spacing**2  # neighbours are two standard deviations apart
    centres = spacing * np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    turns = np.repeat(centres, samples, axis=0) + generator.normal(size=(len(centres) * samples, 2)) / np.sqrt(stiffness)
    apart = np.remainder(turns - centres[:, None] + np.pi, 2 * np.pi) - np.pi
    return 0.5 * stiffness * (apart**2).sum(axis=-1), np.full(len(centres), samples)


def coupling(states: int = 20, samples: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Reduced energies of oscillators from soft to stiff along one line, and samples of each: all overlap."""
    generator = np.random.default_rng(2)
    stiffness, centres = np.linspace(1.0, 2.0, states), np.linspace(0.0, 4.0, states)
    x = (centres[:, None] + generator.normal(size=(states, samples)) / np.sqrt(stiffness)[:, None]).ravel()
    return 0.5 * stiffness[:, None] * (x - centres[:, None]) ** 2, np.full(states, samples)


def ours(energies: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    solved = mixture(energies, counts)
    return solved.free_energies, solved.errors


def theirs(pymbar: Any, energies: np.ndarray, counts: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    solved = pymbar.MBAR(energies, counts, **options)
    return solved.f_k, solved.compute_free_energy_differences()["dDelta_f"][0]


def timed(solve: Callable[[], object]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        solve()
        return time.perf_counter() - start

    return seconds


def run() -> list[Result]:
    """One result a case and protocol of pymbar."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    pymbar, version = importlib.import_module("pymbar"), importlib.metadata.version("pymbar")
    results = []
    for case in (umbrella, coupling):
        energies, counts = case()
        free, errors = ours(energies, counts)
        known, known_errors = theirs(pymbar, energies, counts, solver_protocol=ADAPTIVE)
        if max(np.abs(free - known).max(), np.abs(errors - known_errors).max()) > AGREE:
            raise RuntimeError(f"{case.__name__}: solutions differ by more than {AGREE:g} kT")
        mine = timed(lambda energies=energies, counts=counts: ours(energies, counts))
        for label, options in (("adaptive", {"solver_protocol": ADAPTIVE}), ("default", {})):
            peer = timed(lambda e=energies, c=counts, o=options: theirs(pymbar, e, c, **o))
            name = f"mbar-{case.__name__}-{label}"
            results.append(compare(name, "s", TARGETS[case.__name__], mine, peer, version, ROUNDS, lower_is_better=True))
    return results
