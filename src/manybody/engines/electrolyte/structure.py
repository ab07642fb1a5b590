"""Structure factors of the long waves in the box, alike ones together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manybody.engines.electrolyte.known_answers import BoxModes, Structure


def long_modes(edge: float, most: int) -> BoxModes:
    """The wave vectors 2 pi m / L with |m| <= most: the bins of `ModeBins`."""
    return BoxModes.within(edge, 2 * math.pi / edge * most * (1 + 1e-9))


@dataclass(frozen=True)
class ModeBins:
    """Where half of the modes with |m| <= most stand in a real transform, and which bin each of them belongs to.

    place: flat indices [modes]. sign: [modes], -1 where -m stands there, the conjugate. bin: [modes]; a bin holds the modes of
    equal m_x >= 0 and m_y^2 + m_z^2, in the order of `long_modes`. count: [bins].
    """

    place: np.ndarray
    sign: np.ndarray
    bin: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, points: int, most: int) -> ModeBins:
        """Those of a mesh of points^3."""
        axis = np.arange(-most, most + 1)
        m = np.stack(np.meshgrid(axis[most:], axis, axis, indexing="ij"), -1).reshape(-1, 3)
        x, y, z = m.T
        half = (x > 0) | (y > 0) | ((y == 0) & (z > 0))
        m = m[half & ((m**2).sum(axis=1) <= most**2)]
        sign = np.where(m[:, 2] < 0, -1, 1)  # the transform has m_z >= 0 alone
        stored = sign[:, None] * m
        place = np.ravel_multi_index((stored % points).T, (points, points, points // 2 + 1))
        alike = m[:, 0] * (2 * most**2 + 1) + (m[:, 1:] ** 2).sum(axis=1)
        _, bin_, count = np.unique(alike, return_inverse=True, return_counts=True)
        return cls(place, sign, bin_, count)

    def structure(self, density: np.ndarray, charge: np.ndarray, ions: int) -> Structure:
        """The means over each bin, [bins], of the modes n(k) and c(k) of a real transform."""
        n, c = density.ravel()[self.place], charge.ravel()[self.place]
        rows = (n.real**2 + n.imag**2, c.real**2 + c.imag**2, self.sign * (n * c.conj()).imag)
        return Structure(*(np.bincount(self.bin, row) / (self.count * ions) for row in rows))
