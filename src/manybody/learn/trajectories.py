"""Trajectories that can be differentiated: velocity Verlet unrolled over a short horizon, reverse mode with checkpoints.

    v' = v + dt/2 f(x)/m,  x' = x + dt v',  v'' = v' + dt/2 f(x')/m,  f = -dE/dx.

What reverse mode keeps of a step is a few times what E keeps. So a trajectory of n steps is cut into about sqrt(n) stretches,
of which only the starts are kept; backward, each stretch is computed once more. Memory grows as sqrt(n) instead of n, for one
more forward pass (A. Griewank, Optimization Methods and Software 1, 35 (1992)). Beyond a few Lyapunov times gradients of a
chaotic trajectory grow exponentially and mean nothing.

`torch.utils.checkpoint` is of no use here: forces are derivatives themselves, taken inside of what it would checkpoint, and
each of them makes it compute the whole stretch again and keep it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

Potential = Callable[..., Tensor]


def forces(potential: Potential, positions: Tensor, parameters: Sequence[Tensor] = ()) -> Tensor:
    """-dE/dx of positions [.., 3], which can be differentiated again, by positions and parameters."""
    return -cast("Tensor", torch.func.grad(potential)(positions, *parameters))


def verlet(
    potential: Potential,
    positions: Tensor,
    velocities: Tensor,
    masses: Tensor,
    time_step: float,
    steps: int,
    parameters: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Positions and velocities after `steps` steps of velocity Verlet; reverse mode keeps every step."""
    force = forces(potential, positions, parameters)
    for _ in range(steps):
        halfway = velocities + 0.5 * time_step * force / masses
        positions = positions + time_step * halfway
        force = forces(potential, positions, parameters)
        velocities = halfway + 0.5 * time_step * force / masses
    return positions, velocities


class _Stretch(torch.autograd.Function):
    """A stretch of steps of which only the start is kept; computed once more when it is differentiated."""

    @staticmethod
    def forward(ctx: Any, potential: Potential, time_step: float, steps: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """tensors: positions, velocities, masses and parameters."""
        ctx.potential, ctx.time_step, ctx.steps = potential, time_step, steps
        ctx.save_for_backward(*tensors)
        positions, velocities, masses, *parameters = tensors
        return verlet(potential, positions, velocities, masses, time_step, steps, parameters)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The slopes of what comes after, carried back to the start of the stretch."""
        wanted = ctx.needs_input_grad[3:]
        with torch.enable_grad():
            tensors = [each.detach().requires_grad_(asked) for each, asked in zip(ctx.saved_tensors, wanted, strict=True)]
            positions, velocities, masses, *parameters = tensors
            ends = verlet(ctx.potential, positions, velocities, masses, ctx.time_step, ctx.steps, parameters)
            asked = [each for each in tensors if each.requires_grad]
            found = iter(torch.autograd.grad(ends, asked, slopes, allow_unused=True))
        return (None, None, None, *(next(found) if each else None for each in wanted))


def trajectory(
    potential: Potential,
    positions: Tensor,
    velocities: Tensor,
    masses: Tensor | float,
    time_step: float,
    steps: int,
    parameters: Sequence[Tensor] = (),
    stretch: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Positions and velocities after `steps` steps, differentiable once by those at the start, masses and parameters.

    potential: the energy [] of positions and parameters, ``potential(positions, *parameters)``, a pure function; of a module,
    ``lambda x, *p: torch.func.functional_call(module, dict(zip(names, p)), x)``. positions, velocities: [atoms, 3] or any
    other shape. masses: one, or [atoms]. stretch: steps between checkpoints, sqrt(steps) unless given; `steps` keeps
    everything. The gradients are those of the discrete steps, to round-off, whatever `stretch` is.
    """
    if steps < 0 or (stretch is not None and stretch < 1):
        raise ValueError(f"expected steps >= 0 and stretch >= 1; got {steps} and {stretch}. Give whole numbers.")
    each = stretch or max(1, math.isqrt(steps))
    heavy = torch.as_tensor(masses, dtype=positions.dtype, device=positions.device)
    if heavy.ndim:
        heavy = heavy.reshape(-1, *[1] * (positions.ndim - 1))
    if each >= steps:
        return verlet(potential, positions, velocities, heavy, time_step, steps, parameters)
    for done in range(0, steps, each):
        count = min(each, steps - done)
        positions, velocities = cast(
            "tuple[Tensor, Tensor]",
            _Stretch.apply(potential, time_step, count, positions, velocities, heavy, *parameters),
        )
    return positions, velocities
