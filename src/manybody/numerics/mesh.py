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
from manybody.numerics.vectors import load, multiply, multiply_add, store, total, zeros

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

    weights, slopes: room [points, 3, PAD]; fresh memory each time would cost as much as filling it.
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
            fill_weights(u - cell, order, weights, slopes, (3 * i + a) * PAD)
            start_at = cell - order + 1
            first[i, a] = start_at + shape[a] if start_at < 0 else start_at
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
    columns, rows, width = mesh.shape
    along_z = load(weights, 2 * PAD)
    for a in range(order):
        x = first[0] + a
        x -= columns if x >= columns else 0
        along_x = value * weights[0, a]
        for b in range(order):
            y = first[1] + b
            y -= rows if y >= rows else 0
            start = (x * rows + y) * width + first[2]
            store(multiply_add(along_z, along_x * weights[1, b], load(mesh, start)), mesh, start)


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
            for low in range(0, PAD, depth):  # more than once where the mesh is shallower than the padding
                for z in range(min(depth, PAD - low)):
                    mesh[x, y, z] += padded[x, y, depth + low + z]


@kernel
def _read_point(mesh: Array, first: Integers, weights: Array, slopes: Array, order: int) -> tuple[float, float, float, float]:
    """Value and derivatives by u of the padded mesh at one point.

    Rows are added up with their weights along x and y, and meet those along z once, at the end.
    """
    columns, rows, width = mesh.shape
    plain = by_x = by_y = zeros()
    for a in range(order):
        x = first[0] + a
        x -= columns if x >= columns else 0
        plane = plane_by_y = zeros()
        for b in range(order):
            y = first[1] + b
            y -= rows if y >= rows else 0
            row = load(mesh, (x * rows + y) * width + first[2])
            plane = multiply_add(row, weights[1, b], plane)
            plane_by_y = multiply_add(row, slopes[1, b], plane_by_y)
        plain = multiply_add(plane, weights[0, a], plain)
        by_x = multiply_add(plane, slopes[0, a], by_x)
        by_y = multiply_add(plane_by_y, weights[0, a], by_y)
    along = load(weights, 2 * PAD)
    value, slope = total(multiply(plain, along)), total(multiply(plain, load(slopes, 2 * PAD)))
    return value, total(multiply(by_x, along)), total(multiply(by_y, along)), slope


@kernel
def gather(points: Stencils, mesh: Array, inverse: Array, order: int, padded: Array, values: Array, gradients: Array) -> None:
    """Read mesh [x, y, z] at the points: values [points], and their gradients by position [points, 3]."""
    columns, rows, depth = mesh.shape
    for x in range(columns):
        for y in range(rows):
            for z in range(depth):
                padded[x, y, z] = mesh[x, y, z]
            for low in range(0, PAD, depth):
                for z in range(min(depth, PAD - low)):
                    padded[x, y, depth + low + z] = mesh[x, y, z]
    for n in range(points.order.size):
        i = points.order[n]
        value, by_x, by_y, by_z = _read_point(padded, points.first[i], points.weights[i], points.slopes[i], order)
        values[i] = value
        for a in range(3):
            gradients[i, a] = by_x * columns * inverse[a, 0] + by_y * rows * inverse[a, 1] + by_z * depth * inverse[a, 2]
