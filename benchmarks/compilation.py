"""Eager, TorchScript, torch.compile and AOTInductor: Lennard-Jones energy and forces of 4,000 atoms.

rho = 0.8442, r_c = 2.5, pairs within 2.8 padded to a capacity, double precision, one thread. The peer of each form is the
eager program, with which it takes turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from scipy.spatial import cKDTree

from benchmarks.measure import Result, compare
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.numerics.programs import Form, capacity, compiled, padded_pairs, with_forces

SYSTEM = LennardJonesLiquid(temperature=0.72, density=0.8442, atoms=4000, cutoff=2.5)
SKIN, CALLS, ROUNDS = 0.3, 10, 5
TARGETS: dict[str, float] = {"torchscript": 0.6, "compile": 1.6, "aotinductor": 4.0}
UNIT = "energy and force calls per second"


def run() -> list[Result]:
    """Each form beside eager."""
    torch.set_num_threads(1)
    example = tensors()
    program = with_forces(energy, example)
    programs = {form: compiled(program, example, form) for form in get_args(Form)}
    expected = program(*example)[1]
    for form, found in programs.items():
        deviation = float((found(*example)[1] - expected).abs().max() / expected.abs().max())
        if deviation > 1e-12:
            raise RuntimeError(f"expected the forces of the eager program from {form}; they deviate by {deviation:.2g}")
    rates = {form: rate(found, example) for form, found in programs.items()}
    version = f"torch {torch.__version__}"
    return [compare(f"compile-{form}", UNIT, TARGETS[form], rates[form], rates["eager"], version, ROUNDS) for form in TARGETS]


def energy(positions: torch.Tensor, pairs: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """4 (r^-12 - r^-6) of the pairs within the cutoff; positions [atoms, 3], pairs [2, n], real [n]."""
    apart = positions[pairs[0]] - positions[pairs[1]]
    apart = apart - SYSTEM.box * torch.round(apart / SYSTEM.box)
    r2 = (apart * apart).sum(-1)
    inside = real & (r2 < SYSTEM.cutoff**2)
    inverse = 1 / torch.where(inside, r2, 1.0) ** 3
    return torch.where(inside, 4 * (inverse * inverse - inverse), 0.0).sum()


def tensors() -> tuple[torch.Tensor, ...]:
    """Positions of a liquid, its padded pairs, and which of them are real."""
    engine = LiquidEngine(SYSTEM, 0.005, "bussi", thermostat_time=0.1)
    positions = engine.step(engine.init(Key.from_seed(1)), 500).positions % SYSTEM.box
    pairs = cKDTree(positions.numpy(), boxsize=SYSTEM.box).query_pairs(SYSTEM.cutoff + SKIN, output_type="ndarray")
    ordered = torch.from_numpy(np.ascontiguousarray(pairs[np.lexsort(pairs.T[::-1])].T.astype(np.int64)))
    return positions, *padded_pairs(ordered, capacity(ordered.shape[1]))


def rate(program: Callable[..., Any], example: tuple[torch.Tensor, ...]) -> Callable[[], float]:
    """A function that measures calls per second."""

    def measured() -> float:
        begin = time.process_time()
        for _ in range(CALLS):
            program(*example)
        return CALLS / (time.process_time() - begin)

    return measured
