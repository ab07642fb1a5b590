"""Where windows lie: the Gauss-Lobatto rule, so that the mean slopes of all windows integrate to a free energy.

Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions (1964), 25.4.32.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@cache
def lobatto(count: int) -> tuple[Array, Array]:
    """Nodes and weights [count] of the Gauss-Lobatto rule on 0 .. 1, both ends among the nodes.

    The nodes within are where the derivative of the Legendre polynomial P_(n-1) vanishes; weights are 1 / (n (n - 1) P^2) there.
    """
    legendre = np.polynomial.legendre.Legendre.basis(count - 1)
    nodes = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    nodes = 0.5 * (nodes - nodes[::-1])  # symmetric to the bit
    weights = 1 / (count * (count - 1) * legendre(nodes) ** 2)
    return np.round(0.5 * (1 + nodes), 12), np.asarray(weights)
