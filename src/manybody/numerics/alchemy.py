"""Energies that a coupling turns on or off: U(l) with its forces and slope dU/dl, for pairs, charges and bonds.

A coupling l goes from 0 to 1. Each term says what changes with it, and along which path:

- `CoupledPairs`: parameters of any pair formula, from those at 0 to those at 1 in a straight line;
- `CoupledCharges`: charges likewise, summed by particle-mesh Ewald (`mesh_sum`) or in vacuum (`vacuum_sum`);
- `CoupledBonds`: parameters of bonds, angles and torsions likewise, such as k or r0;
- `CoupledEnergies`: the energy itself, (1 - l) U_0 + l U_1, of anything that has energy and forces.

A pair energy that diverges at r = 0 must not be turned off in a straight line: `<dU/dl>` diverges with it. `softened` makes
any formula u(r) into l u((alpha (1 - l) s^6 + r^6)^(1/6)), which is u at 1, and 0 with a finite slope at 0.

    lj = softened(LENNARD_JONES)
    apart = {"epsilon": 1.0, "sigma": 1.0, "radius": 1.0, "alpha": 0.5, "coupling": 0.0}
    term = CoupledPairs(lj, apart, {**apart, "coupling": 1.0}, solute, solvent, cell, cutoff=2.5)
    energy, forces, slope = term.at(positions, 0.3)

Sources: soft core, T. C. Beutler et al., Chem. Phys. Lett. 222, 529 (1994); integration over l, J. G. Kirkwood, J. Chem. Phys.
3, 300 (1935).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.bonded import COORDINATES, ENERGIES, BondedTerms
from manybody.numerics.ewald import Coulomb, cell_heights, inverse_cell
from manybody.numerics.expressions import FUNCTIONS, evaluated, parsed
from manybody.numerics.pairs import PairPotential
from manybody.numerics.plain_pairs import OF_TENSORS
from manybody.numerics.pme import Exclusions, PMEParameters, PMEPlan

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
ChargeSum = Callable[[Array, Array], Coulomb]
ForceField = Callable[[Array], tuple[float, Array]]
Values = TypeVar("Values", Array, Tensor)

_OF_ARRAYS = {name: getattr(special if name in ("erf", "erfc") else np, name) for name in FUNCTIONS}
SOFTENING = ("radius", "alpha", "coupling")  # what `softened` adds to the parameters of a formula


class Coupled(NamedTuple):
    """What a term gives at one coupling: energy, forces [atoms, 3], and slope dU/dl."""

    energy: float
    forces: Array
    slope: float


class Term(Protocol):
    """A part of the energy that depends on the coupling; positions are [atoms, 3]."""

    def at(self, positions: Array, coupling: float) -> Coupled:
        """Energy, forces and slope at one coupling."""

    def energies(self, positions: Array, couplings: Sequence[float]) -> Array:
        """The energies of one configuration at many couplings, [couplings]: what BAR and MBAR take."""


@dataclass(frozen=True)
class Coupling:
    """Several terms that share one coupling: their sum, a term itself."""

    terms: tuple[Term, ...]

    def at(self, positions: Array, coupling: float) -> Coupled:
        """Energy, forces and slope of all terms together."""
        energy, forces, slope = 0.0, np.zeros_like(positions), 0.0
        for term in self.terms:
            found = term.at(positions, coupling)
            energy, forces, slope = energy + found.energy, forces + found.forces, slope + found.slope
        return Coupled(energy, forces, slope)

    def energies(self, positions: Array, couplings: Sequence[float]) -> Array:
        """The energies of all terms together, [couplings]."""
        found = np.zeros(len(couplings))
        for term in self.terms:
            found += term.energies(positions, couplings)
        return found


# --- pairs -----------------------------------------------------------------------------------------------------


def softened(potential: PairPotential) -> PairPotential:
    """The formula with a soft core: l u(x), x^6 = alpha (1 - l) s^6 + r^6, and the parameters radius s, alpha and coupling l.

    Of Lennard-Jones with s = sigma it is `potentials.SOFT_CORE`. Raises `InputError` where a parameter has one of these names.
    """
    taken = sorted(set(potential.parameters) & set(SOFTENING))
    if taken:
        expected, came = f"parameters other than {', '.join(SOFTENING)}", ", ".join(taken)
        raise InputError(Problem(f"pair potential `{potential.name}`", expected, came, "It has a soft core, or rename them."))
    sixth = "(alpha*(1 - coupling)*radius**6 + r2*r2*r2)"
    inside = _Replaced(
        {"r": ast.parse(f"{sixth}**(1/6)", mode="eval").body, "r2": ast.parse(f"{sixth}**(1/3)", mode="eval").body}
    )
    body = inside.visit(ast.parse(potential.expression, mode="eval").body)
    return PairPotential(f"soft-{potential.name}", f"coupling*({ast.unparse(body)})", (*potential.parameters, *SOFTENING))


class _Replaced(ast.NodeTransformer):
    """Puts an expression in the place of each of some names."""

    def __init__(self, by: Mapping[str, ast.expr]) -> None:
        self.by = by

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.by.get(node.id, node)


@dataclass(frozen=True)
class CoupledPairs:
    """The pairs of `solute` with `rest` (atoms, none in both), nearest images only, up to a cutoff.

    begin and end: each parameter of the potential at coupling 0 and 1, a number or an array that fits [solute, rest]. cell
    [3, 3], rows its vectors, or edges [3]; the cutoff is at most half its smallest height. shifted: u(cutoff) is taken off.
    """

    potential: PairPotential
    begin: Mapping[str, float | Array]
    end: Mapping[str, float | Array]
    solute: Indices
    rest: Indices
    cell: Array
    cutoff: float
    shifted: bool = True

    def __post_init__(self) -> None:
        where, names = f"coupled pairs of `{self.potential.name}`", ", ".join(self.potential.parameters)
        for given in (self.begin, self.end):
            if set(given) != set(self.potential.parameters):
                came = ", ".join(given) or "none"
                raise InputError(Problem(where, f"values for {names}", came, "Give each of them at both ends, and no other."))
        room = 0.5 * float(cell_heights(self._vectors).min())
        if not 0 < self.cutoff <= room * (1 + 1e-12):
            remedy = "Lower it, or take a larger cell."
            raise InputError(Problem(where, f"a cutoff up to half the cell, {room:.6g}", f"{self.cutoff:g}", remedy))
        if np.intersect1d(self.solute, self.rest).size:
            raise InputError(Problem(where, "atoms that are in `solute` or in `rest`", "some in both", "Take them out of one."))

    @cached_property
    def _vectors(self) -> Array:
        return np.diag(self.cell) if self.cell.ndim == 1 else self.cell

    @cached_property
    def _inverse(self) -> Array:
        return inverse_cell(self._vectors)

    def squares(self, positions: Tensor) -> Tensor:
        """Squared distances of nearest images, [solute, rest]; differentiable in positions [atoms, 3]."""
        apart = positions[torch.from_numpy(self.solute)][:, None] - positions[torch.from_numpy(self.rest)]
        hops = np.rint(apart.detach().numpy() @ self._inverse)
        return cast("Tensor", (apart - torch.from_numpy(hops @ self._vectors)).square().sum(dim=-1))

    def pair_energies(self, squares: Values, coupling: Values | float) -> Values:
        """u(r) of squared distances [..., solute, rest] at a coupling that broadcasts with them; 0 beyond the cutoff.

        Of arrays or of tensors; differentiable in both.
        """
        library, functions = (torch, OF_TENSORS) if isinstance(squares, Tensor) else (np, _OF_ARRAYS)
        inside = squares <= self.cutoff**2
        values: dict[str, Any] = {name: self._between(name, coupling) for name in self.potential.parameters}
        tree = parsed(self.potential.expression, {"r", "r2", *values}, f"pair potential `{self.potential.name}`")

        def energy(r2: Any, r: Any) -> Any:
            return evaluated(tree, {"r2": r2, "r": r, **values}, functions)

        safe: Any = library.where(inside, squares, self.cutoff**2)
        off = energy(self.cutoff**2, self.cutoff) if self.shifted else 0.0
        return cast("Values", library.where(inside, energy(safe, library.sqrt(safe)) - off, 0.0))

    def _between(self, name: str, coupling: Any) -> Any:
        first, last = self.begin[name], self.end[name]
        if isinstance(coupling, Tensor):
            first, last = (torch.as_tensor(value, dtype=torch.float64) for value in (first, last))
        return first + coupling * (last - first)

    def at(self, positions: Array, coupling: float) -> Coupled:
        """Energy, forces and slope, by automatic differentiation of the formula."""
        x = torch.from_numpy(np.array(positions, dtype=np.float64)).requires_grad_()
        here = torch.tensor(coupling, dtype=torch.float64, requires_grad=True)
        energy = self.pair_energies(self.squares(x), here).sum()
        by_place, by_coupling = torch.autograd.grad(energy, (x, here))
        return Coupled(energy.item(), -by_place.numpy(), by_coupling.item())

    def energies(self, positions: Array, couplings: Sequence[float]) -> Array:
        """The energies at many couplings, [couplings]."""
        squares = self.squares(torch.from_numpy(np.asarray(positions, dtype=np.float64))).numpy()
        many = np.asarray(couplings)[:, None, None]
        return np.asarray(self.pair_energies(squares[None], many).sum(axis=(1, 2)))


# --- charges ---------------------------------------------------------------------------------------------------


def mesh_sum(
    cell: Array, parameters: PMEParameters, coulomb_constant: float = 1.0, exclusions: Exclusions | None = None
) -> ChargeSum:
    """Charges in a periodic cell [3, 3], by particle-mesh Ewald."""

    def total(positions: Array, charges: Array) -> Coulomb:
        return PMEPlan(charges, cell, parameters, coulomb_constant, exclusions).evaluate(positions)

    return total


def vacuum_sum(coulomb_constant: float = 1.0) -> ChargeSum:
    """All pairs of charges by 1/r, without images or cutoff; its virial is sum r f."""

    def total(positions: Array, charges: Array) -> Coulomb:
        apart = positions[:, None] - positions
        r = np.sqrt((apart**2).sum(axis=-1))
        np.fill_diagonal(r, np.inf)  # a charge does not meet itself
        potentials = coulomb_constant * (charges / r).sum(axis=1)
        products = coulomb_constant * charges[:, None] * charges
        forces = (products / r**3)[..., None] * apart
        virial = 0.5 * np.einsum("ija,ijb->ab", apart, forces)
        return Coulomb(0.5 * float(charges @ potentials), forces.sum(axis=1), potentials, virial)

    return total


@dataclass(frozen=True)
class CoupledCharges:
    """Charges [atoms] that go from `begin` to `end` in a straight line, under any sum that is quadratic in them."""

    begin: Array
    end: Array
    total: ChargeSum

    def __post_init__(self) -> None:
        if self.begin.ndim != 1 or self.begin.shape != self.end.shape:
            came = f"{list(self.begin.shape)} and {list(self.end.shape)}"
            raise InputError(Problem("coupled charges", "a charge for each atom at 0 and at 1", came, "Give both, [atoms]."))

    def at(self, positions: Array, coupling: float) -> Coupled:
        """Energy and forces, and the slope sum_i dU/dq_i (q_i(1) - q_i(0)), exact for the sum as it is computed."""
        change = self.end - self.begin
        found = self.total(positions, self.begin + coupling * change)
        return Coupled(found.energy, found.forces, float(found.potentials @ change))

    def energies(self, positions: Array, couplings: Sequence[float]) -> Array:
        """The energies at many couplings, [couplings], by two sums: U is a parabola in the coupling."""
        change, values = self.end - self.begin, np.asarray(couplings)
        first, last = self.total(positions, self.begin), self.total(positions, change)
        return np.asarray(first.energy + values * float(first.potentials @ change) + values**2 * last.energy)


# --- bonds -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoupledBonds:
    """Terms of one form along the same atoms, whose parameters go from those of `begin` to those of `end` in a straight line.

    A parameter that is 0 at one end turns a term on or off: k of a spring, or every coefficient of a torsion.
    """

    begin: BondedTerms
    end: BondedTerms

    def __post_init__(self) -> None:
        first, last = self.begin, self.end
        if first.form != last.form or not np.array_equal(first.atoms, last.atoms):
            came = f"{len(first.atoms)} of `{first.form}` and {len(last.atoms)} of `{last.form}`"
            remedy = "Turn one off and the other on: two terms, or `CoupledEnergies`."
            raise InputError(Problem("coupled bonds", "one form and the same atoms at both ends", came, remedy))
        if first.form == "periodic-torsion" and not np.array_equal(first.parameters[:, 1], last.parameters[:, 1]):
            remedy = "Turn one off and the other on by their k."
            raise InputError(Problem("coupled bonds", "whole multiplicities on the way", "two that differ", remedy))

    def _between(self, coupling: float) -> Array:
        return self.begin.parameters + coupling * (self.end.parameters - self.begin.parameters)

    def at(self, positions: Array, coupling: float) -> Coupled:
        """Energy and forces by the compiled terms, and the slope by that of the formula in its parameters."""
        forces, between = np.zeros_like(positions), self._between(coupling)
        energy = BondedTerms(self.begin.form, self.begin.atoms, between).add_forces(positions, forces)
        parameters = torch.from_numpy(between).requires_grad_()
        (by,) = torch.autograd.grad(ENERGIES[self.begin.form](self._coordinates(positions), *parameters.T).sum(), parameters)
        return Coupled(energy, forces, float((by.numpy() * (self.end.parameters - self.begin.parameters)).sum()))

    def energies(self, positions: Array, couplings: Sequence[float]) -> Array:
        """The energies at many couplings, [couplings]."""
        along, formula = self._coordinates(positions), ENERGIES[self.begin.form]
        return np.array([formula(along, *torch.from_numpy(self._between(value)).T).sum().item() for value in couplings])

    def _coordinates(self, positions: Array) -> Tensor:
        return COORDINATES[self.begin.form](torch.from_numpy(np.asarray(positions, dtype=np.float64)[self.begin.atoms]))


# --- energies --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoupledEnergies:
    """(1 - l) U_0 + l U_1 of two functions that give energy and forces of positions [atoms, 3]; None is no energy at all."""

    begin: ForceField | None
    end: ForceField | None

    def at(self, positions: Array, coupling: float) -> Coupled:
        """Energy, forces and slope; the slope is U_1 - U_0."""
        (first, pull), (last, push) = self._of(self.begin, positions), self._of(self.end, positions)
        return Coupled(first + coupling * (last - first), pull + coupling * (push - pull), last - first)

    def energies(self, positions: Array, couplings: Sequence[float]) -> Array:
        """The energies at many couplings, [couplings]."""
        first, last = self._of(self.begin, positions)[0], self._of(self.end, positions)[0]
        return np.asarray(first + np.asarray(couplings) * (last - first))

    @staticmethod
    def _of(field: ForceField | None, positions: Array) -> tuple[float, Array]:
        return (0.0, np.zeros_like(positions)) if field is None else field(positions)
