"""Many-body potentials in plain torch, by autograd: the oracle of the kernels that `many_body_formula.py` generates.

Written without regard to speed: all pairs with all images, all pairs of them for the angles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manybody.numerics.expressions import evaluated
from manybody.numerics.many_body_formula import ManyBodyKernel
from manybody.numerics.nonbonded import switch
from manybody.numerics.pair_sums import image_pairs
from manybody.numerics.plain_pairs import OF_TENSORS


def energy(kernel: ManyBodyKernel, positions: Tensor, cell: Tensor) -> Tensor:
    """E [] of positions [atoms, 3] in a periodic cell [3, 3], differentiable by both."""
    i, j, hops = image_pairs(positions, cell, kernel.reach)
    v = positions[j] + hops.to(cell.dtype) @ cell - positions[i]
    r = torch.linalg.norm(v, dim=1)
    near, dense, fade = r.detach() < kernel.cutoff, r.detach() < kernel.dense, _smooth(kernel, r)
    total = 0.5 * (_value(kernel, "pair", r=r[near]) * fade[near]).sum()
    if kernel.potential.density != "0":
        rho = r.new_zeros(len(positions)).index_add(0, i[dense], _value(kernel, "density", r=r[dense]) * fade[dense])
        total = total + _value(kernel, "embedding", rho=rho).sum()
    one, other = torch.nonzero(torch.triu((i[:, None] == i) & near[:, None] & near, diagonal=1), as_tuple=True)
    cosine = (v[one] * v[other]).sum(dim=1) / (r[one] * r[other])
    bent = _value(kernel, "triple", r=r[one], s=r[other], c=cosine)
    return total + (bent * fade[one] * fade[other]).sum()


def derivatives(kernel: ManyBodyKernel, positions: Tensor, cell: Tensor) -> tuple[float, Tensor, Tensor]:
    """Energy, forces [atoms, 3], and the derivative of the energy by strain [3, 3]."""
    strain = torch.zeros(3, 3, dtype=positions.dtype, requires_grad=True)
    x = positions.detach().requires_grad_()
    turn = torch.eye(3, dtype=positions.dtype) + strain
    found = energy(kernel, x @ turn, cell @ turn)
    slope, strained = torch.autograd.grad(found, (x, strain))
    return found.item(), -slope, strained


def _smooth(kernel: ManyBodyKernel, r: Tensor) -> Tensor:
    """1 up to the switch, 0 from the cutoff on."""
    if kernel.switch == kernel.cutoff:
        return torch.ones_like(r)
    return switch(r, kernel.switch, kernel.cutoff)


def _value(kernel: ManyBodyKernel, part: str, **variables: Tensor) -> Tensor:
    names: dict[str, Any] = variables | kernel.values | ({"r2": variables["r"] ** 2} if "r" in variables else {})
    found = evaluated(kernel.potential.tree(part), names, OF_TENSORS, float)
    return torch.zeros_like(next(iter(variables.values()))) + found
