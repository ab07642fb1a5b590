"""Sums over pairs, over bonded terms, and particle-mesh Ewald, as torch operators: differentiable, compiled, exported.

``manybody::pair_energy`` is differentiable in positions, cell and parameters. On a CPU it runs a kernel generated from the
formula, elsewhere plain torch; the derivatives, those by parameters too, come from the same SymPy expression (`pair_sums`).
Its gradient is ``manybody::pair_gradients``, which has a gradient itself, so that forces can be trained on; there is no
third derivative. ``manybody::bonded_energy`` is the same of terms by formula, in positions and parameters; its second
derivative is plain torch. ``manybody::pme_energy`` is differentiable once in positions, charges and cell.

    energy = pair_energy(LENNARD_JONES, positions, cell, {"epsilon": epsilon, "sigma": 1.0}, cutoff=2.5, shifted=True)
    (forces,) = torch.autograd.grad(-energy, positions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics.bonded_formulas import BondedPotential
from manybody.numerics.formula_terms import plain_energy
from manybody.numerics.pair_sums import CompiledSums, Formula, Gradients, PlainSums, gradient_by_cell, image_pairs
from manybody.numerics.pairs import PairPotential
from manybody.numerics.plain_pairs import PlainPairs
from manybody.numerics.pme import PMEParameters, PMEPlan

_ELSEWHERE = ("cuda", "mps", "xpu")

# --- pairs: what is called -------------------------------------------------------------------------------------


def pair_energy(
    potential: PairPotential,
    positions: Tensor,
    cell: Tensor,
    parameters: Mapping[str, Tensor | float],
    cutoff: float,
    species: Tensor | None = None,
    shifted: bool = False,
) -> Tensor:
    """The energy of all pairs within `cutoff`, []; twice differentiable in positions, cell and parameters.

    positions: [atoms, 3], wrapped or not; cell: [3, 3] with rows as lattice vectors, or edges [3]. parameters: each a
    number, or a table [species, species] where `species` [atoms] numbers the atoms' kinds; of the entries [a, b] and [b, a]
    the mean is taken. The cutoff may exceed the cell. At the cutoff the energy jumps, which derivatives know
    nothing of, unless `shifted`: then u(cutoff) is taken off each pair. Kernels compute in double precision.
    Raises `InputError` for missing parameters, shapes that do not fit, and on a CPU for positions that are not finite.
    """
    arguments = _arguments(potential, positions, cell, parameters, cutoff, species, shifted)
    return cast("Tensor", _pair_energy(*arguments))


def pair_forces(
    potential: PairPotential,
    positions: Tensor,
    cell: Tensor,
    parameters: Mapping[str, Tensor | float],
    cutoff: float,
    species: Tensor | None = None,
) -> Tensor:
    """The forces [atoms, 3], minus the gradient of `pair_energy`, as an operator: for programs that are exported with forces."""
    arguments = _arguments(potential, positions, cell, parameters, cutoff, species, False)
    return cast("Tensor", -_pair_gradients(*arguments)[0])


def _arguments(
    potential: PairPotential,
    positions: Tensor,
    cell: Tensor,
    parameters: Mapping[str, Tensor | float],
    cutoff: float,
    species: Tensor | None,
    shifted: bool,
) -> tuple[Any, ...]:
    """What the operators take."""
    _refuse_what_does_not_fit(potential, positions, cell, parameters, cutoff)
    cell = torch.diag(cell) if cell.dim() == 1 else cell
    table = _table([parameters[name] for name in potential.parameters], positions)
    names = ",".join(potential.parameters)
    return positions, cell, table, _kinds(positions, species), cutoff, shifted, potential.expression, names


def _kinds(positions: Tensor, species: Tensor | None) -> Tensor:
    """The number of everyone's kind, 0 where there is but one."""
    return torch.zeros(len(positions), dtype=torch.int64, device=positions.device) if species is None else species


def plain_pair_energy(
    potential: PairPotential,
    positions: Tensor,
    cell: Tensor,
    parameters: Mapping[str, Tensor | float],
    cutoff: float,
    species: Tensor | None = None,
    shifted: bool = False,
) -> Tensor:
    """The same as `pair_energy` by autograd of the formula as it is written: the oracle of both implementations."""
    cell = torch.diag(cell) if cell.dim() == 1 else cell
    i, j, hops = image_pairs(positions, cell, cutoff)
    squares = (positions[j] - positions[i] + hops @ cell).square().sum(dim=1)
    kinds = _kinds(positions, species)
    chosen = _table([parameters[name] for name in potential.parameters], positions)[kinds[i], kinds[j]]
    pairs = PlainPairs(potential, cast("dict[str, float]", dict(zip(potential.parameters, chosen.unbind(1), strict=True))))
    edge = pairs.energy(torch.full_like(squares, cutoff**2)) if shifted else torch.zeros_like(squares)
    return 0.5 * (pairs.energy(squares) - edge).sum()


def _table(values: Sequence[Tensor | float], positions: Tensor) -> Tensor:
    """Parameters as one tensor [species, species, parameters], symmetric."""
    tensors = [torch.as_tensor(value, dtype=positions.dtype, device=positions.device) for value in values]
    if not tensors:
        return positions.new_zeros(1, 1, 0)
    sides = max(1 if value.dim() == 0 else len(value) for value in tensors)
    table = torch.stack([value.expand(sides, sides) for value in tensors], dim=-1)
    return 0.5 * (table + table.transpose(0, 1))


def _refuse_what_does_not_fit(
    potential: PairPotential, positions: Tensor, cell: Tensor, parameters: Mapping[str, Tensor | float], cutoff: float
) -> None:
    where = f"pair potential `{potential.name}`"
    if set(parameters) != set(potential.parameters):
        expected, came = f"values for {', '.join(potential.parameters)}", ", ".join(parameters) or "none"
        raise InputError(Problem(where, expected, came, "Give each of them, and no other."))
    if positions.dim() != 2 or positions.shape[1] != 3 or tuple(cell.shape) not in ((3,), (3, 3)) or not cutoff > 0:
        came = f"positions {list(positions.shape)}, cell {list(cell.shape)}, cutoff {cutoff:g}"
        expected = "positions [atoms, 3], a cell [3, 3] or [3], and a cutoff above 0"
        raise InputError(Problem(where, expected, came, "Give tensors of these shapes."))
    for name, value in parameters.items():
        if isinstance(value, Tensor) and value.dim() != 0 and (value.dim() != 2 or value.shape[0] != value.shape[1]):
            expected, remedy = f"`{name}` as a number or [species, species]", "Mix parameters of atoms into a table of pairs."
            raise InputError(Problem(where, expected, f"shape {list(value.shape)}", remedy))


# --- pairs: the operators --------------------------------------------------------------------------------------
# The formula goes along as text, so that one operator serves all potentials, and an exported program carries its own.


def _formula(expression: str, names: str) -> Formula:
    return Formula(expression, tuple(name for name in names.split(",") if name))


@torch.library.custom_op("manybody::pair_energy", mutates_args=(), device_types="cpu")
def _pair_energy(
    positions: Tensor, cell: Tensor, table: Tensor, species: Tensor, cutoff: float, shifted: bool, expression: str, names: str
) -> Tensor:
    return CompiledSums(_formula(expression, names), positions, cell, table, species, cutoff, shifted).energy()


@torch.library.custom_op("manybody::pair_gradients", mutates_args=(), device_types="cpu")
def _pair_gradients(
    positions: Tensor, cell: Tensor, table: Tensor, species: Tensor, cutoff: float, shifted: bool, expression: str, names: str
) -> tuple[Tensor, Tensor, Tensor]:
    return CompiledSums(_formula(expression, names), positions, cell, table, species, cutoff, shifted).gradients()


@torch.library.custom_op("manybody::pair_curvature", mutates_args=(), device_types="cpu")
def _pair_curvature(
    positions: Tensor, cell: Tensor, table: Tensor, along: Tensor, along_cell: Tensor, along_table: Tensor, species: Tensor,
    cutoff: float, shifted: bool, expression: str, names: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    sums = CompiledSums(_formula(expression, names), positions, cell, table, species, cutoff, shifted)
    return sums.curvature(along, along_cell, along_table)


@_pair_energy.register_kernel(_ELSEWHERE)
def _plain_energy(positions: Tensor, cell: Tensor, table: Tensor, species: Tensor, *rest: Any) -> Tensor:
    return PlainSums(_formula(*rest[2:]), positions, cell, table, species, *rest[:2]).energy()


@_pair_gradients.register_kernel(_ELSEWHERE)
def _plain_gradients(positions: Tensor, cell: Tensor, table: Tensor, species: Tensor, *rest: Any) -> Gradients:
    return PlainSums(_formula(*rest[2:]), positions, cell, table, species, *rest[:2]).gradients()


@_pair_curvature.register_kernel(_ELSEWHERE)
def _plain_curvature(
    positions: Tensor, cell: Tensor, table: Tensor, along: Tensor, along_cell: Tensor, along_table: Tensor, species: Tensor,
    *rest: Any,
) -> Gradients:  # fmt: skip
    sums = PlainSums(_formula(*rest[2:]), positions, cell, table, species, *rest[:2])
    return sums.curvature(along, along_cell, along_table)


@_pair_energy.register_fake
def _energy_shape(positions: Tensor, *_: Any) -> Tensor:
    return positions.new_empty(())


@_pair_gradients.register_fake
@_pair_curvature.register_fake
def _gradient_shapes(positions: Tensor, cell: Tensor, table: Tensor, *_: Any) -> Gradients:
    return positions.new_empty(positions.shape), cell.new_empty(cell.shape), table.new_empty(table.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:]


def _energy_backward(ctx: Any, weight: Tensor) -> tuple[Any, ...]:
    found = _pair_gradients(*ctx.saved_tensors, *ctx.rest)
    return (*(weight * gradient for gradient in found), *[None] * 5)


def _gradients_backward(ctx: Any, *along: Tensor) -> tuple[Any, ...]:
    *tensors, species = ctx.saved_tensors
    return (*_pair_curvature(*tensors, *along, species, *ctx.rest), *[None] * 5)


_pair_energy.register_autograd(_energy_backward, setup_context=_remember)
_pair_gradients.register_autograd(_gradients_backward, setup_context=_remember)


# --- bonded terms ----------------------------------------------------------------------------------------------


def bonded_energy(potential: BondedPotential, positions: Tensor, atoms: Tensor, parameters: Tensor) -> Tensor:
    """The energy of bonded terms by formula, []; twice differentiable in positions and parameters.

    positions: [atoms, 3], whole; atoms: [terms, atoms of a term]; parameters: [terms, parameters], in the potential's order.
    Raises `InputError` for shapes that do not fit. Kernels compute in double precision.
    """
    members, values = potential.members, len(potential.parameters)
    if tuple(atoms.shape[1:]) != (members,) or tuple(parameters.shape) != (len(atoms), values):
        expected = f"atoms [terms, {members}] and parameters [terms, {values}]"
        came = f"atoms {list(atoms.shape)} and parameters {list(parameters.shape)}"
        raise InputError(Problem(potential.where, expected, came, "Give one row for each term."))
    return cast("Tensor", _bonded_energy(positions, atoms, parameters, potential.expression, ",".join(potential.parameters)))


@lru_cache(maxsize=64)
def _bonded(expression: str, names: str) -> BondedPotential:
    return BondedPotential(expression, tuple(name for name in names.split(",") if name))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float64) for tensor in tensors]


@torch.library.custom_op("manybody::bonded_energy", mutates_args=(), device_types="cpu")
def _bonded_energy(positions: Tensor, atoms: Tensor, parameters: Tensor, expression: str, names: str) -> Tensor:
    x, p = _arrays(positions, parameters)
    return positions.new_tensor(_bonded(expression, names).module.add_forces(x, atoms.numpy(), p, np.zeros_like(x)))


@torch.library.custom_op("manybody::bonded_gradients", mutates_args=(), device_types="cpu")
def _bonded_gradients(positions: Tensor, atoms: Tensor, parameters: Tensor, expression: str, names: str) -> tuple[Tensor, Tensor]:
    x, p = _arrays(positions, parameters)
    by_atom, by_parameter = np.zeros_like(x), np.zeros_like(p)
    _bonded(expression, names).module.add_gradients(x, atoms.numpy(), p, by_atom, by_parameter)
    return torch.from_numpy(by_atom).to(positions.dtype), torch.from_numpy(by_parameter).to(parameters.dtype)


@_bonded_energy.register_kernel(_ELSEWHERE)
def _plain_bonded_energy(positions: Tensor, atoms: Tensor, parameters: Tensor, *formula: str) -> Tensor:
    return plain_energy(_bonded(*formula), positions, atoms, parameters)


@_bonded_gradients.register_kernel(_ELSEWHERE)
def _plain_bonded_gradients(
    positions: Tensor, atoms: Tensor, parameters: Tensor, *formula: str, onward: bool = False
) -> tuple[Tensor, Tensor]:
    """By autograd; `onward` keeps what a further derivative takes."""
    with torch.enable_grad():
        x, p = (tensor if onward else tensor.detach().requires_grad_() for tensor in (positions, parameters))
        energy = plain_energy(_bonded(*formula), x, atoms, p)
        by_x, by_p = torch.autograd.grad(energy, (x, p), create_graph=onward, materialize_grads=True)
    return by_x, by_p


@_bonded_energy.register_fake
def _bonded_energy_shape(positions: Tensor, *_: Any) -> Tensor:
    return positions.new_empty(())


@_bonded_gradients.register_fake
def _bonded_gradient_shapes(positions: Tensor, atoms: Tensor, parameters: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return positions.new_empty(positions.shape), parameters.new_empty(parameters.shape)


def _bonded_remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.formula = inputs[3:]


def _bonded_backward(ctx: Any, weight: Tensor) -> tuple[Any, ...]:
    by_x, by_p = _bonded_gradients(*ctx.saved_tensors, *ctx.formula)
    return weight * by_x, None, weight * by_p, None, None


def _bonded_gradients_backward(ctx: Any, along_x: Tensor, along_p: Tensor) -> tuple[Any, ...]:
    positions, atoms, parameters = ctx.saved_tensors
    with torch.enable_grad():
        x, p = (tensor.detach().requires_grad_() for tensor in (positions, parameters))
        by_x, by_p = _plain_bonded_gradients(x, atoms, p, *ctx.formula, onward=True)
        slope = (by_x * along_x).sum() + (by_p * along_p).sum()
        by_x, by_p = torch.autograd.grad(slope, (x, p), materialize_grads=True)
    return by_x, None, by_p, None, None


_bonded_energy.register_autograd(_bonded_backward, setup_context=_bonded_remember)
_bonded_gradients.register_autograd(_bonded_gradients_backward, setup_context=_bonded_remember)


# --- particle-mesh Ewald ---------------------------------------------------------------------------------------


def pme_energy(
    positions: Tensor, charges: Tensor, cell: Tensor, parameters: PMEParameters, coulomb_constant: float = 1.0
) -> Tensor:
    """The Coulomb energy of periodic charges by particle-mesh Ewald, []; differentiable once, and on a CPU.

    positions: [atoms, 3]; charges: [atoms]; cell: [3, 3] with rows as lattice vectors; parameters: alpha, cutoff, mesh and
    order, constants. The energy is one over a length times charges squared times `coulomb_constant`.
    """
    shape = list(parameters.mesh)
    numbers = (parameters.alpha, parameters.cutoff, parameters.order, shape, parameters.single, coulomb_constant)
    return cast("Tensor", _pme(positions, charges, cell, *numbers)[0])


@torch.library.custom_op("manybody::pme", mutates_args=(), device_types="cpu")
def _pme(
    positions: Tensor, charges: Tensor, cell: Tensor, alpha: float, cutoff: float, order: int, mesh: Sequence[int], single: bool,
    coulomb_constant: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Energy, and its gradients by positions, charges and cell: one evaluation gives them all."""
    x, q, h = (np.asarray(tensor.detach().numpy(), dtype=np.float64) for tensor in (positions, charges, cell))
    parameters = PMEParameters(alpha=alpha, cutoff=cutoff, order=order, mesh=(mesh[0], mesh[1], mesh[2]), single=single)
    found = PMEPlan(q, h, parameters, coulomb_constant).evaluate(x, virial=True)
    slope = torch.from_numpy(-found.forces).to(positions.dtype)
    strain = torch.from_numpy(-found.virial).to(positions.dtype)
    potentials = torch.from_numpy(found.potentials).to(positions.dtype)
    return positions.new_tensor(found.energy), slope, potentials, gradient_by_cell(cell, strain, positions, slope)


@_pme.register_fake
def _pme_shapes(positions: Tensor, charges: Tensor, cell: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return positions.new_empty(()), *(tensor.new_empty(tensor.shape) for tensor in (positions, charges, cell))


def _pme_remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _pme_backward(ctx: Any, weight: Tensor, *_: Any) -> tuple[Any, ...]:
    return (*(weight * gradient for gradient in ctx.saved_tensors), *[None] * 6)


_pme.register_autograd(_pme_backward, setup_context=_pme_remember)
