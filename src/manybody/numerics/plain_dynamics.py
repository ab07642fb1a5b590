"""The dynamics of `pair_template.advance` in plain torch, on any device: its oracle, and the path on CUDA.

The same splitting, the same random numbers, the same samples; forces from any function of positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from manybody.numerics.integrators import LANGEVIN, LONGEST_STEP, NO_BATH, HeatBath

Evaluate = Callable[[Tensor], tuple[Tensor, float, float, float]]


def heat_bath(v: Tensor, bath: HeatBath, dt: float, noise: Tensor, chi2: Tensor) -> tuple[Tensor, Tensor]:
    """O: the new velocities [atoms, 3] and the heat taken up; noise [atoms, 3] or [1, 1] and chi2 [] are the step's numbers."""
    before, decay = 0.5 * (v**2).sum(), bath.decay(dt)
    if bath.kind == NO_BATH:
        return v, torch.zeros_like(before)
    if bath.kind == LANGEVIN:
        v = decay * v + math.sqrt((1 - decay**2) * bath.kT) * noise
        return v, 0.5 * (v**2).sum() - before
    share = (1 - decay) * bath.kT / (2 * before)
    root = noise[0, 0] * torch.sqrt(share) + math.sqrt(decay)
    factor2 = root**2 + share * chi2
    return v * torch.sqrt(factor2) * torch.where(root >= 0, 1.0, -1.0), before * (factor2 - 1)


def advance(
    x: Tensor, v: Tensor, evaluate: Evaluate, bath: HeatBath, dt: float, noise: np.ndarray, chi2: np.ndarray,
    stride: int, samples: np.ndarray,
) -> tuple[Tensor, Tensor, int, int]:  # fmt: skip
    """Advance positions and velocities [atoms, 3] by ``len(samples) * stride`` steps.

    `evaluate` gives forces, energy, virial and pairs; samples [samples, 8] and what is returned are those of
    `manybody.numerics.pair_template.advance`.
    """
    random = torch.from_numpy(noise).to(x), torch.from_numpy(chi2).to(x)
    force, *totals = evaluate(x)
    heat = torch.zeros((), dtype=x.dtype, device=x.device)
    for step in range(len(samples) * stride):
        v = v + 0.5 * dt * force
        x = x + 0.5 * dt * v
        v, gained = heat_bath(v, bath, dt, *_numbers_of_step(random, step))
        heat = heat + gained
        x = x + 0.5 * dt * v
        force, *totals = evaluate(x)
        v = v + 0.5 * dt * force
        fast = ((v.abs() + 0.5 * dt * force.abs()) ** 2).sum(dim=1) * dt**2
        bad = ~(fast < LONGEST_STEP**2)
        if bool(bad.any()):
            return x, v, step, int(torch.nonzero(bad)[0, 0])
        if (step + 1) % stride == 0:
            row = [*totals, 0.5 * float((v**2).sum()), float(heat), *v.sum(dim=0).tolist()]
            samples[(step + 1) // stride - 1] = row
    return x, v, -1, -1


def _numbers_of_step(random: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, Tensor]:
    """The random numbers of one step; those that the bath does not use are empty."""
    noise, chi2 = random
    return noise[step] if len(noise) else noise, chi2[step] if len(chi2) else chi2
