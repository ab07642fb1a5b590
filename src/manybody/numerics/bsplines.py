"""Cardinal B-splines: how a point is spread over a mesh, smoothly.

M_2(u) = 1 - |u - 1| on [0, 2];  M_n(u) = u / (n - 1) M_(n-1)(u) + (n - u) / (n - 1) M_(n-1)(u - 1), non-zero on (0, n).
Source: U. Essmann et al., J. Chem. Phys. 103 (1995) 8577, section III; I. J. Schoenberg, Cardinal Spline Interpolation.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.jit import kernel
from manybody.numerics.registers import LANES
from manybody.numerics.vectors import add, counting, move_up, multiply, multiply_add, store, zeros

Array = NDArray[np.float64]

SMALLEST_ORDER, LARGEST_ORDER = 3, LANES


def check_order(order: int) -> int:
    """The order, if it is one that is supported: 3 to 8; raises InputError otherwise."""
    if not SMALLEST_ORDER <= order <= LARGEST_ORDER:
        expected = f"a spline order from {SMALLEST_ORDER} to {LARGEST_ORDER}"
        raise InputError(Problem("order", expected, f"{order}", "Take 6; forces need at least 3 to be continuous."))
    return order


def bspline(u: Tensor, order: int) -> Tensor:
    """M_order(u) for any real u, elementwise; zero outside (0, order). Differentiable (order - 2) times."""
    if order == 2:
        return torch.clamp(1 - torch.abs(u - 1), min=0)
    return (u * bspline(u, order - 1) + (order - u) * bspline(u - 1, order - 1)) / (order - 1)


def point_weights(u: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """First mesh index and weights of points at mesh coordinates u: [points] integers, [points, order].

    The spline is centred: weight j belongs to mesh point first + j (not wrapped) and is M_n(u - first - j + n / 2).
    The weights of a point add up to one. Differentiable in u.
    """
    shifted = u + 0.5 * order
    first = torch.floor(shifted.detach()) - order + 1
    arguments = shifted[:, None] - first[:, None] - torch.arange(order, device=u.device, dtype=u.dtype)
    return first.to(torch.int64), bspline(arguments, order)


def euler_moduli(points: int, order: int) -> Array:
    """|sum_k M_n(k + 1) exp(2 pi i m k / K)|^2 for m = 0 .. K - 1: what spreading does to each mode of a mesh; [points].

    Essmann's 1 / |b(m)|^2. For an odd order it vanishes at the Nyquist mode; there the mean of its neighbours is used.
    """
    knots = bspline(torch.arange(1, order, dtype=torch.float64), order).numpy()
    samples = np.zeros(points)
    np.add.at(samples, np.arange(order - 1) % points, knots)
    moduli = np.abs(np.fft.fft(samples)) ** 2
    for m in np.flatnonzero(moduli < 1e-10):
        moduli[m] = 0.5 * (moduli[m - 1] + moduli[(m + 1) % points])
    return np.asarray(moduli)


@kernel
def fill_weights(fraction: float, order: int, weights: Array, slopes: Array, start: int) -> None:
    """Weights M_n(fraction + n - 1 - j) and their derivatives by fraction for j = 0 .. n - 1, then zeros: `LARGEST_ORDER` each.

    They go into the two arrays from element `start` on. The recursion takes all j at once, in a register, from w_0 = 1 at
    order 1: w_j becomes ((fraction + n - 1 - j) w_(j-1) + (1 + j - fraction) w_j) / (n - 1), which is 0 from j = n on.
    """
    falling, rising = multiply(counting(), -1.0), add(counting(), 1.0 - fraction)
    w = before = add(multiply(move_up(add(zeros(), 1.0)), -1.0), 1.0)
    for n in range(2, order + 1):
        before = w
        shifted = multiply(add(falling, fraction + n - 1), move_up(before))
        w = multiply(multiply_add(rising, before, shifted), 1.0 / (n - 1))
    store(w, weights, start)
    store(multiply_add(before, -1.0, move_up(before)), slopes, start)  # dM_n(u)/du = M_(n-1)(u) - M_(n-1)(u - 1)
