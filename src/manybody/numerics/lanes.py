"""Many small systems side by side, one in each lane of a SIMD register: pair forces and dynamics from a formula.

A system's bits do not depend on which others it is advanced with. For a few hundred atoms this is several times
faster than one system after the other with lists of neighbours; beyond that lists win.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from manybody.core.digest import digest_document
from manybody.core.errors import InputError, Problem
from manybody.numerics import jit
from manybody.numerics.lane_template import LANES, MOST_ATOMS
from manybody.numerics.pairs import MARKED, PairPotential, formula

_TEMPLATE = Path(__file__).with_name("lane_template.py")
_BUILT_IN = ("integrators.py", "jit.py", "pairs.py")


@dataclass(frozen=True)
class LaneKernel:
    """A potential with its parameters, compiled for `LANES` systems at once. `module` has the functions of `lane_template.py`."""

    potential: PairPotential
    values: np.ndarray = field(compare=False)

    @cached_property
    def module(self) -> Any:
        """The generated module; generated now where the cache does not have it."""
        texts = [path.read_text(encoding="utf-8") for path in (_TEMPLATE, *(_TEMPLATE.with_name(name) for name in _BUILT_IN))]
        digest = digest_document([self.potential.expression, self.potential.parameters, version("numba"), *texts])
        path = jit.kernel_path(digest)
        if not path.exists():
            jit.keep_source(path, generate(self.potential))
        return jit.load_module(path)

    def evaluate(self, positions: np.ndarray, box: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        """Forces [systems, atoms, 3]; energy (not shifted), virial and pairs within the cutoff [3, systems].

        positions [systems, atoms, 3], box [3] (edges of every system's box); `cutoff` at most half the shortest edge.
        """
        self._refuse_unsound(positions.shape[1], box, cutoff)
        found = [self.module.evaluate(filled(positions[group]), box, cutoff, self.values) for group in groups(len(positions))]
        forces, totals = np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found], axis=1)
        return forces[: len(positions)], totals[:, : len(positions)]

    def _refuse_unsound(self, atoms: int, box: np.ndarray, cutoff: float) -> None:
        where = f"systems side by side with `{self.potential.name}`"
        if atoms > MOST_ATOMS:
            raise InputError(
                Problem(where, f"at most {MOST_ATOMS} atoms", f"{atoms}", "Use `PairKernel`, which has lists of neighbours.")
            )
        if not 0 < cutoff <= 0.5 * box.min() * (1 + 1e-12):
            raise InputError(Problem(where, f"a cutoff up to half the box, {0.5 * box.min():g}", f"{cutoff:g}", "Lower it."))


def groups(systems: int) -> list[slice]:
    """Stretches of `LANES` systems; the last may have fewer."""
    return [slice(first, min(first + LANES, systems)) for first in range(0, systems, LANES)]


def filled(values: np.ndarray) -> np.ndarray:
    """A copy of values [systems, ...] with the last one repeated up to `LANES`."""
    return np.concatenate([values, np.repeat(values[-1:], LANES - len(values), axis=0)])


def generate(potential: PairPotential) -> str:
    """The source of a potential's kernel module."""
    head = f'"""Kernel of `{potential.name}`, many systems side by side: {potential.expression}. Generated; do not edit."""\n\n'
    rest = _TEMPLATE.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)[1]
    text, _ = formula(potential)
    return head + MARKED.sub(lambda _: text, rest)
