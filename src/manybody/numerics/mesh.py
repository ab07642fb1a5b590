"""Spreading points over a periodic mesh by B-splines, and reading a mesh at points.

The mesh is [x, y, z] over a cell of any shape; a point at fractional coordinates s sits at u = s * shape. Points are
taken slab by slab, so that what they touch stays in cache; the kernels run in the calling thread and let go of the
interpreter lock, so that other work can go on beside them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.numerics.bsplines import LARGEST_ORDER, fill_weights, point_weights
from manybody.numerics.clusters import counting_sort
from manybody.numerics.jit import kernel

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

PAD = LARGEST_ORDER  # rows along z are written eight at a time, one AVX-512 register, whatever the order


# --- the formula -----------------------------------------------------------------------------------------------


def spread_points(fractional: Tensor, values: Tensor, shape: tuple[int, int, int], order: int) -> Tensor:
    """Q(m) = sum_i q_i prod_a M_n(u_ia - m_a + n / 2), periodic: the plain twin of `spread`.

    fractional: [points, 3]; values: [points]; returns [shape]. Differentiable in both, on any device.
    """
    index, weights = _stencil(fractional, shape, order)
    flat = torch.zeros(shape[0] * shape[1] * shape[2], dtype=values.dtype, device=values.device)
    return flat.index_add(0, index.reshape(-1), (values[:, None] * weights).reshape(-1)).reshape(shape)


def read_points(fractional: Tensor, mesh: Tensor, order: int) -> Tensor:
    """f_i = sum_m mesh(m) prod_a M_n(u_ia - m_a + n / 2): the plain twin of `gather`.  Returns [points]."""
    shape = (mesh.shape[0], mesh.shape[1], mesh.shape[2])
    index, weights = _stencil(fractional, shape, order)
    return (mesh.reshape(-1)[index] * weights).sum(-1)


def _stencil(fractional: Tensor, shape: tuple[int, int, int], order: int) -> tuple[Tensor, Tensor]:
    """Flat mesh indices and weights of each point, [points, order^3] both."""
    indices, weights = [], []
    for axis, points in enumerate(shape):
        first, weight = point_weights(fractional[:, axis] * points, order)
        indices.append((first[:, None] + torch.arange(order, device=first.device)) % points)
        weights.append(weight)
    x, y, z = indices
    index = (x[:, :, None, None] * shape[1] + y[:, None, :, None]) * shape[2] + z[:, None, None, :]
    weight = weights[0][:, :, None, None] * weights[1][:, None, :, None] * weights[2][:, None, None, :]
    return index.reshape(len(index), -1), weight.reshape(len(weight), -1)


# --- the compiled path -----------------------------------------------------------------------------------------


class Stencils(NamedTuple):
    """Where points touch a mesh: first [points, 3], weights and slopes (d weight / d u) [points, 3, PAD], zero-padded.

    order [points] sorts the points by slab, start [slabs + 1] says where each begins in it.
    """

    first: Integers
    weights: Array
    slopes: Array
    order: NDArray[np.int32]
    start: NDArray[np.int32]


@kernel
def stencils(positions: Array, inverse: Array, shape: Integers, order: int, weights: Array, slopes: Array) -> Stencils:
    """The stencils of points at positions [points, 3] (not wrapped), with inverse the inverse cell [3, 3].

    weights, slopes: room [points, 3, PAD] that holds zeros, or the stencils of an earlier call of the same order: fresh
    memory each time would cost as much as filling it.
    """
    points = positions.shape[0]
    first = np.empty((points, 3), np.int64)
    slabs = slab_count(shape[0], order)
    keys = np.empty(points, np.int32)
    for i in range(points):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        for a in range(3):
            s = x * inverse[0, a] + y * inverse[1, a] + z * inverse[2, a]
            u = (s - np.floor(s)) * shape[a] + 0.5 * order
            cell = int(np.floor(u))
            fill_weights(u - cell, order, weights[i, a], slopes[i, a])
            first[i, a] = (cell - order + 1 + shape[a]) % shape[a]
        keys[i] = first[i, 0] * slabs // shape[0]
    sorting, start = counting_sort(keys, slabs)
    return Stencils(first, weights, slopes, sorting, start)


@kernel
def slab_count(planes: int, order: int) -> int:
    """Slabs of planes that points are sorted into, each about as thick as a stencil: neighbours in memory share cache."""
    return max(1, planes // order)


@kernel
def _add_point(mesh: Array, first: Integers, weights: Array, value: float, order: int) -> None:
    """Add one point to the padded mesh [x, y, z + PAD]."""
    columns, rows = mesh.shape[0], mesh.shape[1]
    w, k = weights[2], first[2]
    z0, z1, z2, z3, z4, z5, z6, z7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for a in range(order):
        x = first[0] + a
        x -= columns if x >= columns else 0
        along_x = value * weights[0, a]
        for b in range(order):
            y = first[1] + b
            y -= rows if y >= rows else 0
            q = along_x * weights[1, b]
            row = mesh[x, y, k : k + PAD]
            row[0] += q * z0
            row[1] += q * z1
            row[2] += q * z2
            row[3] += q * z3
            row[4] += q * z4
            row[5] += q * z5
            row[6] += q * z6
            row[7] += q * z7


@kernel
def spread(points: Stencils, values: Array, order: int, padded: Array, mesh: Array) -> None:
    """Q(m) of `spread_points` into mesh [x, y, z]; padded [x, y, z + PAD] is room to work in."""
    columns, rows, depth = mesh.shape
    padded[:] = 0.0
    for n in range(points.order.size):
        i = points.order[n]
        _add_point(padded, points.first[i], points.weights[i], values[i], order)
    for x in range(columns):
        for y in range(rows):
            for z in range(depth):
                mesh[x, y, z] = padded[x, y, z]
            for z in range(PAD):
                mesh[x, y, z % depth] += padded[x, y, depth + z]


@kernel
def _read_point(mesh: Array, first: Integers, weights: Array, slopes: Array, order: int) -> tuple[float, float, float, float]:
    """Value and derivatives by u of the padded mesh at one point."""
    columns, rows = mesh.shape[0], mesh.shape[1]
    w, d, k = weights[2], slopes[2], first[2]
    z0, z1, z2, z3, z4, z5, z6, z7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    d0, d1, d2, d3, d4, d5, d6, d7 = d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]
    value = by_x = by_y = by_z = 0.0
    for a in range(order):
        x = first[0] + a
        x -= columns if x >= columns else 0
        plain = plain_y = slope = 0.0
        for b in range(order):
            y = first[1] + b
            y -= rows if y >= rows else 0
            r = mesh[x, y, k : k + PAD]
            along = r[0] * z0 + r[1] * z1 + r[2] * z2 + r[3] * z3 + r[4] * z4 + r[5] * z5 + r[6] * z6 + r[7] * z7
            steep = r[0] * d0 + r[1] * d1 + r[2] * d2 + r[3] * d3 + r[4] * d4 + r[5] * d5 + r[6] * d6 + r[7] * d7
            plain += weights[1, b] * along
            plain_y += slopes[1, b] * along
            slope += weights[1, b] * steep
        value += weights[0, a] * plain
        by_x += slopes[0, a] * plain
        by_y += weights[0, a] * plain_y
        by_z += weights[0, a] * slope
    return value, by_x, by_y, by_z


@kernel
def gather(points: Stencils, mesh: Array, inverse: Array, order: int, padded: Array, values: Array, gradients: Array) -> None:
    """Read mesh [x, y, z] at the points: values [points], and their gradients by position [points, 3]."""
    columns, rows, depth = mesh.shape
    for x in range(columns):
        for y in range(rows):
            for z in range(depth):
                padded[x, y, z] = mesh[x, y, z]
            for z in range(PAD):
                padded[x, y, depth + z] = mesh[x, y, z % depth]
    for n in range(points.order.size):
        i = points.order[n]
        value, by_x, by_y, by_z = _read_point(padded, points.first[i], points.weights[i], points.slopes[i], order)
        values[i] = value
        for a in range(3):
            gradients[i, a] = by_x * columns * inverse[a, 0] + by_y * rows * inverse[a, 1] + by_z * depth * inverse[a, 2]
