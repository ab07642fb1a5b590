"""Sums over pairs with first and second derivatives, compiled from a formula for CPUs and in plain torch for the rest.

    E = 1/2 sum_(i, j, n) u(|x_j - x_i + n cell|; p[s_i, s_j])    over pairs within the cutoff, images n included

The table p is symmetric, so that a pair is the same from both sides. `CompiledSums` and `PlainSums` take the same tensors
and give the same values: `energy`, its `gradients` by positions, cell and parameters, and its `curvature`, the gradients
of the derivative along a change of these. SymPy derives all of them from the text of the potential. `operators.py` makes
torch operators of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from manybody.core.digest import digest_document
from manybody.core.errors import InputError, Problem
from manybody.numerics import jit
from manybody.numerics.ewald import image_shifts
from manybody.numerics.expressions import FUNCTIONS, symbolic
from manybody.numerics.lattice_list import LatticeList, lattice_list
from manybody.numerics.plain_pairs import lifted

if TYPE_CHECKING:
    import sympy

Gradients = tuple[Tensor, Tensor, Tensor]  # by positions [atoms, 3], cell [3, 3], parameters [species, species, parameters]
Values = Callable[..., list[Any]]

_TEMPLATE = Path(__file__).with_name("pair_derivatives.py")
_MARKED = re.compile(r"# --- formula ---\n.*?# --- end of formula ---\n", re.DOTALL)


@dataclass(frozen=True)
class Formula:
    """u(r) as a checked text (`pairs.PairPotential`) and the names of its parameters."""

    expression: str
    names: tuple[str, ...]

    @property
    def module(self) -> Any:
        """The compiled functions of `pair_derivatives.py` for this formula, kept on disk by digest."""
        built_in = [_TEMPLATE.read_text(encoding="utf-8"), Path(jit.__file__).read_text(encoding="utf-8")]
        digest = digest_document(["derivatives", self.expression, self.names, version("numba"), version("sympy"), *built_in])
        path = jit.kernel_path(digest)
        if not path.exists():
            jit.keep_source(path, generate(self))
        return jit.load_module(path)


def _derived(formula: Formula) -> tuple[list[sympy.Symbol], list[sympy.Expr], list[sympy.Expr]]:
    """The symbols s, p_0, ..; and what `first` and `second` of `pair_derivatives.py` return, as functions of s = r^2."""
    import sympy

    s = sympy.Symbol("s", positive=True)
    names = {name: sympy.Symbol(f"p[{place}]", real=True) for place, name in enumerate(formula.names)}
    u = symbolic(formula.expression, {"r": sympy.sqrt(s), "r2": s} | names, "pair sums")
    w, by = 2 * sympy.diff(u, s), list(names.values())
    first = [u, w, *(sympy.diff(u, p) for p in by)]
    second = [w, 2 * sympy.diff(w, s), *(sympy.diff(w, p) for p in by), *(sympy.diff(u, p, q) for p in by for q in by)]
    return [s, *by], first, second


def generate(formula: Formula) -> str:
    """The source of a formula's kernel module."""
    from sympy import cse, numbered_symbols, pycode

    _, first, second = _derived(formula)
    lines = []
    for name, values in (("first", first), ("second", second)):
        shared, results = cse(values, symbols=numbered_symbols("t"), order="none")
        body = [f"{symbol} = {pycode(value)}" for symbol, value in shared]
        body += [f"out[{place}] = {pycode(value)}" for place, value in enumerate(results)]
        lines += ["@kernel", f"def {name}(s, p, out):", *(f"    {line}" for line in body), "", ""]
    head = f'"""Pair sums of {formula.expression}, with derivatives. Generated; do not edit."""\n\nimport math\n'
    body_text = _TEMPLATE.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)[1]
    return head + _MARKED.sub(lambda _: "\n".join(lines) + "\n", body_text)


@cache
def _plain_functions(formula: Formula) -> tuple[Values, Values]:
    """`first` and `second` as functions of tensors s, p_0, .., each giving a list of tensors or numbers."""
    import sympy

    symbols, first, second = _derived(formula)
    plain = [sympy.Symbol(f"x{place}") for place in range(len(symbols))]
    renamed = dict(zip(symbols, plain, strict=True))
    modules = [{name: lifted(name) for name in FUNCTIONS}, "math"]

    def made(values: list[sympy.Expr]) -> Values:
        function: Values = sympy.lambdify(plain, [value.xreplace(renamed) for value in values], modules=modules, cse=True)
        return function

    return made(first), made(second)


def gradient_by_cell(cell: Tensor, strain: Tensor, positions: Tensor, by_atom: Tensor) -> Tensor:
    """The gradient [3, 3] by cell vectors at fixed positions, from that by strain of both.

    Under a strain e both change, dx = x e and dcell = cell e, so dE/de = x^T dE/dx + cell^T dE/dcell.
    """
    return torch.linalg.solve(cell.T, strain - positions.T @ by_atom).contiguous()


# --- compiled --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompiledSums:
    """The sums by a generated kernel.

    positions: [atoms, 3]; cell: [3, 3]; table: [species, species, parameters]; species: [atoms].
    """

    formula: Formula
    positions: Tensor
    cell: Tensor
    table: Tensor
    species: Tensor
    cutoff: float
    shifted: bool

    def energy(self) -> Tensor:
        """E, []."""
        _, arguments = self._listed()
        return self.positions.new_tensor(self.formula.module.energy(*arguments, self.cutoff, self.shifted))

    def gradients(self) -> Gradients:
        """dE by positions, cell and table."""
        near, arguments = self._listed()
        sums = self._room()
        self.formula.module.gradients(*arguments, self.cutoff, self.shifted, *sums)
        return self._tensors(near, sums)

    def curvature(self, along: Tensor, along_cell: Tensor, along_table: Tensor) -> Gradients:
        """The gradients of the derivative of E along a change of positions, cell and table."""
        near, arguments = self._listed()
        sums, points = self._room(), arguments[0]
        # A point moves with its atom, and its image and wrapping with the cell: whole numbers of cell vectors.
        names = np.concatenate([near.order, near.order[near.source]])
        wrapped = points - _doubles(self.positions)[names].T
        turn = np.linalg.solve(_doubles(self.cell), _doubles(along_cell))
        change = _doubles(along)[names].T + turn.T @ wrapped
        rest = (np.ascontiguousarray(change), _doubles(along_table), *sums)
        self.formula.module.curvature(*arguments, self.cutoff, self.shifted, *rest)
        return self._tensors(near, sums)

    def _listed(self) -> tuple[LatticeList, tuple[Any, ...]]:
        positions, cell = _doubles(self.positions), _doubles(self.cell)
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            bad = int((~np.isfinite(positions)).sum())
            remedy = "Look at what made them: a diverged run, or a step that was too long."
            raise InputError(Problem("pair_energy", "finite positions and cell", f"{bad} positions that are not", remedy))
        near = lattice_list(positions, cell, self.cutoff)
        inside = positions[near.order].T - near.offset
        points = np.concatenate([inside, inside[:, near.source] + near.shift], axis=1)
        species = self.species.cpu().numpy()[np.concatenate([near.order, near.order[near.source]])]
        return near, (points, near.first, near.start, near.entries, species, _doubles(self.table))

    def _room(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros((3, len(self.positions))), np.zeros((3, 3)), np.zeros(tuple(self.table.shape))

    def _tensors(self, near: LatticeList, sums: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Gradients:
        by_atom = np.empty((len(self.positions), 3))
        by_atom[near.order] = sums[0].T
        forces, strain, table = (torch.from_numpy(values).to(self.positions.dtype) for values in (by_atom, *sums[1:]))
        return forces, gradient_by_cell(self.cell, strain, self.positions, forces), table


def _doubles(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float64)


# --- plain torch -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlainSums:
    """The same sums by explicit derivatives in plain torch, over all pairs and images, on any device: O(atoms^2)."""

    formula: Formula
    positions: Tensor
    cell: Tensor
    table: Tensor
    species: Tensor
    cutoff: float
    shifted: bool

    def energy(self) -> Tensor:
        """E, []."""
        *_, r, p = self._pairs()
        u = self._values(0, (r**2).sum(1), p)[:, 0] - self._edge(0, p)[:, 0]
        return 0.5 * u.sum()

    def gradients(self) -> Gradients:
        """dE by positions, cell and table."""
        i, j, _, r, p = self._pairs()
        found = self._values(0, (r**2).sum(1), p)
        return self._sums(i, j, r, found[:, 1:2] * r, found[:, 2:] - self._edge(0, p)[:, 2:])

    def curvature(self, along: Tensor, along_cell: Tensor, along_table: Tensor) -> Gradients:
        """The gradients of the derivative of E along a change of positions, cell and table."""
        i, j, hops, r, p = self._pairs()
        count = p.shape[1]
        found, edge = self._values(1, (r**2).sum(1), p), self._edge(1, p)
        change, tilt = along[j] - along[i] + hops @ along_cell, along_table[self.species[i], self.species[j]]
        stretch = (r * change).sum(1)
        pull = found[:, 1] * stretch + (found[:, 2 : 2 + count] * tilt).sum(1)
        second = (found - edge)[:, 2 + count :].reshape(-1, count, count)
        bend = found[:, 2 : 2 + count] * stretch[:, None] + torch.einsum("nkl,nl->nk", second, tilt)
        return self._sums(i, j, r, found[:, :1] * change + pull[:, None] * r, bend)

    def _pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Atoms i and j, images [pairs, 3], vectors from i to j, and parameters of all pairs from both sides."""
        i, j, hops = image_pairs(self.positions, self.cell, self.cutoff)
        r = self.positions[j] - self.positions[i] + hops @ self.cell
        return i, j, hops, r, self.table[self.species[i], self.species[j]]

    def _values(self, order: int, s: Tensor, p: Tensor) -> Tensor:
        """What `first` (0) or `second` (1) gives for each pair, [pairs, values]."""
        values = _plain_functions(self.formula)[order](s, *p.unbind(1))
        return torch.stack([torch.as_tensor(value, dtype=s.dtype, device=s.device).expand_as(s) for value in values], dim=1)

    def _edge(self, order: int, p: Tensor) -> Tensor:
        found = self._values(order, p.new_full((len(p),), self.cutoff**2), p)
        return found if self.shifted else torch.zeros_like(found)

    def _sums(self, i: Tensor, j: Tensor, r: Tensor, push: Tensor, bend: Tensor) -> Gradients:
        by_atom = self.positions.new_zeros(self.positions.shape).index_add(0, i, -push)
        table = self.table.new_zeros(self.table.shape).index_put((self.species[i], self.species[j]), 0.5 * bend, accumulate=True)
        return by_atom, gradient_by_cell(self.cell, 0.5 * r.T @ push, self.positions, by_atom), table


def image_pairs(positions: Tensor, cell: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of atoms i, j [pairs] within the cutoff from both sides, and the whole cell vectors [pairs, 3] to add to j.

    positions: [atoms, 3], wrapped or not; cell: [3, 3]. Images of an atom itself are among the pairs. Not differentiable.
    """
    positions, cell = positions.detach(), cell.detach()
    shifts = torch.as_tensor(image_shifts(cell.cpu().numpy(), cutoff), dtype=cell.dtype, device=cell.device)
    apart = positions - positions[:, None]
    nearest = -torch.round(apart @ torch.linalg.inv(cell))
    squares = ((apart + nearest @ cell)[:, :, None] + shifts @ cell).square().sum(dim=-1)
    i, j, n = torch.nonzero(squares <= cutoff**2, as_tuple=True)
    hops = nearest[i, j] + shifts[n]
    other = (i != j) | (hops != 0).any(dim=1)
    return i[other], j[other], hops[other]
