"""Biases along collective variables: harmonic restraints, and the hills of well-tempered metadynamics on a grid.

    restraint   V(s) = sum_i k (s_i - c_i)^2 / 2, the shorter way round where s_i is periodic
    hills       V(s) = sum_h w_h prod_i exp((cos(s_i - s_i,h) - 1) / sigma^2), on angles

The kernel of a hill is a Gaussian of width sigma that comes round smoothly (von Mises). Value, both slopes and the mixed
derivative of V are kept on the nodes of a grid, to which every hill is added exactly; in between V is the bicubic Hermite
polynomial of the four nodes around, and its gradient is that polynomial's: the force is the derivative of the energy to
round-off. The interpolation differs from the sum of the hills by about (4 / 384) w (h / sigma)^4 a hill, h being the
grid's spacing: 3e-5 of a hill at h = sigma / 4.

With heights w = w_0 exp(-V(s, t) / (kT (gamma - 1))) the bias tends to -(1 - 1/gamma) F(s) (A. Barducci, G. Bussi and
M. Parrinello, Phys. Rev. Lett. 100, 020603 (2008)); with c(t) as `offset` has it, samples weighted by
exp((V(s, t) - c(t)) / kT) are those of the unbiased ensemble (P. Tiwary and M. Parrinello, J. Phys. Chem. B 119, 736
(2015)).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.numerics.jit import exact_kernel

Array = NDArray[np.float64]

COARSEST = 4.0  # nodes that a hill's width takes at least

# --- the formulas ----------------------------------------------------------------------------------------------


def restraint_energy(s: Tensor, centres: Tensor, stiffness: Tensor, periodic: Tensor) -> Tensor:
    """sum k (s - c)^2 / 2 over variables [variables], the shorter way round where `periodic`; returns []."""
    apart = s - centres
    turns = 2 * math.pi * torch.round((apart / (2 * math.pi)).detach())
    return (0.5 * stiffness * torch.where(periodic, apart - turns, apart) ** 2).sum()


def hills_energy(s: Tensor, hills: Tensor, width: float) -> Tensor:
    """The sum of all hills [hills, variables + 1] (centres, height) at angles s [..., variables]; returns [...]."""
    shape = ((torch.cos(s[..., None, :] - hills[:, :-1]) - 1) / width**2).sum(dim=-1)
    return (hills[:, -1] * torch.exp(shape)).sum(dim=-1)


def offset(values: Array, kT: float, bias_factor: float) -> float:
    """c(t) = kT log(int exp(g V / kT) / int exp((g - 1) V / kT)), g = gamma / (gamma - 1), of a bias on nodes; energy.

    Tiwary and Parrinello (2015), eq. 10: what the bias would be, were its samples weighted to the unbiased ensemble.
    """
    scaled = (values - values.max()) / (kT * (bias_factor - 1))
    ratio = np.exp(bias_factor * scaled).sum() / np.exp(scaled).sum()
    return float(values.max() + kT * math.log(ratio))


def node_count(width: float) -> int:
    """Nodes on a circle, at least `COARSEST` to the width of a hill."""
    return math.ceil(2 * math.pi * COARSEST / width)


def empty_grid(variables: int, nodes: int) -> Array:
    """A bias of nothing on a circle or a torus: value, slopes along both, mixed derivative, [nodes, nodes or 1, 4]."""
    return np.zeros((nodes, nodes if variables == 2 else 1, 4))


# --- the compiled path -----------------------------------------------------------------------------------------
# One angle is taken as two of which the second never changes: a grid of one node along it, and hills that are flat there.


@exact_kernel
def _profile(nodes: int, centre: float, width: float, values: Array, slopes: Array) -> None:
    """A hill of height 1 and its derivative on the nodes of a circle; flat where there is but one node."""
    for n in range(nodes):
        if nodes == 1:
            values[n], slopes[n] = 1.0, 0.0
            continue
        turn = 2.0 * math.pi * n / nodes - centre
        values[n] = math.exp((math.cos(turn) - 1.0) / (width * width))
        slopes[n] = -values[n] * math.sin(turn) / (width * width)


@exact_kernel
def add_hill(grid: Array, centre: Array, height: float, width: float) -> None:
    """Add a hill at angles centre [2] to value, slopes and mixed derivative on every node of grid [nodes, nodes, 4]."""
    rows, columns = grid.shape[0], grid.shape[1]
    first, first_slope, second, second_slope = np.empty(rows), np.empty(rows), np.empty(columns), np.empty(columns)
    _profile(rows, centre[0], width, first, first_slope)
    _profile(columns, centre[1], width, second, second_slope)
    for i in range(rows):
        for j in range(columns):
            grid[i, j, 0] += height * first[i] * second[j]
            grid[i, j, 1] += height * first_slope[i] * second[j]
            grid[i, j, 2] += height * first[i] * second_slope[j]
            grid[i, j, 3] += height * first_slope[i] * second_slope[j]


@exact_kernel
def _hermite(t: float, step: float, basis: Array, slopes: Array) -> None:
    """Cubic Hermite polynomials at t in 0 .. 1 of a cell of width `step`, and their derivatives by the variable.

    In order: value at the left, value at the right, slope at the left, slope at the right.
    """
    basis[0] = (1.0 + 2.0 * t) * (1.0 - t) * (1.0 - t)
    basis[1] = t * t * (3.0 - 2.0 * t)
    basis[2] = step * t * (1.0 - t) * (1.0 - t)
    basis[3] = step * t * t * (t - 1.0)
    slopes[0] = 6.0 * t * (t - 1.0) / step
    slopes[1] = -slopes[0]
    slopes[2] = (1.0 - t) * (1.0 - 3.0 * t)
    slopes[3] = t * (3.0 * t - 2.0)


@exact_kernel
def _cell(angle: float, nodes: int, basis: Array, slopes: Array) -> int:
    """The cell of a circle of nodes that an angle is in, and the polynomials there."""
    step = 2.0 * math.pi / nodes
    place = angle / step - nodes * math.floor(angle / (step * nodes))
    low = min(int(place), nodes - 1)
    _hermite(place - low, step, basis, slopes)
    return low


@exact_kernel
def read_hills(grid: Array, angles: Array, slope: Array) -> float:
    """The bias at angles [2] and its derivatives by them, into slope [2]."""
    rows, columns = grid.shape[0], grid.shape[1]
    along, along_slope, across, across_slope = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    i = _cell(angles[0], rows, along, along_slope)
    j = _cell(angles[1], columns, across, across_slope)
    value = 0.0
    slope[0] = slope[1] = 0.0
    for a in range(2):
        for b in range(2):
            node = grid[(i + a) % rows, (j + b) % columns]
            for p in range(2):  # value or slope along the first angle
                for q in range(2):
                    held = node[p + 2 * q]
                    value += held * along[a + 2 * p] * across[b + 2 * q]
                    slope[0] += held * along_slope[a + 2 * p] * across[b + 2 * q]
                    slope[1] += held * along[a + 2 * p] * across_slope[b + 2 * q]
    return value
