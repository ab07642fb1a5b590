"""Models that `manybody.learn.export` wrote, driving atoms: TorchScript, torch.export or AOTInductor, by path and digest.

A program takes positions [atoms, 3], cell [3, 3] and numbers [atoms], in that order, and with a cutoff also pairs [2, size]
and shifts [size, 3]: every pair within the cutoff once, r_ij = x_j + shift - x_i, filled up with pairs of atom 0 with itself at
twice the cutoff and the skin. It gives energy [], forces [atoms, 3] and the derivative of the energy by strain [3, 3].
`drivable` makes such a program of a plain energy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from manybody.core.energies import EnergyError, EnergyModel, Evaluated, digest_of, identified, verified
from manybody.core.errors import InputError, Problem
from manybody.core.units import LENGTH

if TYPE_CHECKING:
    import torch

    from manybody.learn.export import Exported
    from manybody.numerics.many_body import Rows

SKIN = 0.4  # angstroms that pairs are listed beyond the cutoff, where the model gives nothing: speed, not physics
TENSORS = ("positions", "cell", "numbers", "pairs", "shifts")
MISHAPS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)  # what a program may raise when it runs


class ExportedModel(EnergyModel):
    """A model in a file that `manybody.learn.export.export` wrote, its description beside it; eV and angstroms.

    `content` is found when the study is read; a node whose file differs refuses the task.
    """

    summary: ClassVar[str] = "a model exported as TorchScript, torch.export or AOTInductor package, by path and digest"
    provider: ClassVar[str] = "manybody.learn.exported:provider"

    name: Literal["exported"] = "exported"
    file: str = Field(description="the file *.pt or *.pt2", examples=["model.pt2"])
    content: str = Field("", description="SHA-256 of the file; leave it out, and it is found")
    elements: tuple[str, ...] = Field(min_length=1, description="elements that it was made for", examples=[["Cu"]])
    cutoff: Annotated[float | None, LENGTH] = Field(None, gt=0, description="range of the pairs that it takes, if it takes pairs")

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, given: Any) -> Any:
        path = identified(cls, given, "file")
        return given if path is None else given | {"content": digest_of(path)}


def drivable(energy: Callable[..., torch.Tensor], example: tuple[torch.Tensor, ...]) -> torch.fx.GraphModule:
    """The program that drives atoms, from one that gives the energy [] of the tensors of `example`, as this module says.

    Derivatives are taken once, here: the program has no autograd in it and can be exported in any form.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    def strained(positions: torch.Tensor, strain: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        turn = torch.eye(3, dtype=strain.dtype, device=strain.device) + 0.5 * (strain + strain.T)
        cell, numbers, *pairs = rest
        if pairs:
            return energy(positions @ turn, cell @ turn, numbers, pairs[0], pairs[1] @ turn)
        return energy(positions @ turn, cell @ turn, numbers)

    def program(positions: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        slopes, value = torch.func.grad_and_value(strained, argnums=(0, 1))(positions, torch.zeros_like(rest[0]), *rest)
        return value, -slopes[0], slopes[1]

    made: torch.fx.GraphModule = make_fx(program)(*example)
    return made


def example_of(
    positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float | None = None, room: float = 1.5
) -> tuple[torch.Tensor, ...]:
    """Tensors to export a program with: for as many atoms, and `room` times as many pairs as there are."""
    import torch

    tensors = (torch.from_numpy(positions.copy()), torch.from_numpy(cell.copy()), torch.from_numpy(numbers.astype(np.int64)))
    if cutoff is None:
        return tensors
    pairs, shifts = _rows(positions, cell, pbc, cutoff).pairs()
    return (*tensors, *_padded(pairs, shifts, cutoff, round(room * pairs.shape[1]) + 1))


class ExportedProvider:
    """`core.energies.ForceProvider` of an exported program."""

    def __init__(self, exported: Exported, cutoff: float | None) -> None:
        self.exported, self.cutoff = exported, cutoff
        self._kept: tuple[Rows, np.ndarray, tuple[torch.Tensor, ...]] | None = None

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        """Energy, forces and stress. Raises `EnergyError` where the program was exported for other atoms, or fails."""
        import torch

        if not np.isfinite(positions).all():
            raise EnergyError("a position is not finite", int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0]))
        real = getattr(torch, self.exported.package.inputs[0].dtype)
        given = torch.from_numpy(positions).to(real), torch.from_numpy(cell).to(real), torch.from_numpy(numbers.astype(np.int64))
        listed = () if self.cutoff is None else self._pairs(positions, cell, pbc, self.cutoff)
        pairs = [each.to(real) if each.is_floating_point() else each for each in listed]
        try:
            energy, forces, strained = self.exported(*given, *pairs)
        except (InputError, *MISHAPS) as error:
            raise EnergyError(f"the exported model fails: {error}") from error
        volume = abs(float(np.linalg.det(cell)))
        stress = strained.detach().numpy().astype(np.float64) / volume if pbc.all() and volume > 0 else None
        return Evaluated(float(energy), forces.detach().numpy().astype(np.float64), stress)

    def forget(self) -> None:
        """Drop the pairs."""
        self._kept = None

    def _pairs(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> tuple[torch.Tensor, ...]:
        if self._kept is not None and np.array_equal(self._kept[1], cell) and self._kept[0].still_hold(positions):
            return self._kept[2]
        rows = _rows(positions, cell, pbc, cutoff)
        pairs, shifts = rows.pairs()
        size = self.exported.package.inputs[3].shape[1]
        if pairs.shape[1] > size:
            raise EnergyError(f"{pairs.shape[1]} pairs are within the cutoff; the model was exported for at most {size}")
        self._kept = rows, cell.copy(), _padded(pairs, shifts, cutoff, size)
        return self._kept[2]


def provider(model: ExportedModel) -> ExportedProvider:
    """The model in the file. Raises `InputError` where it is not the one that was asked for, or takes other tensors."""
    from manybody.learn.export import load

    path = verified(Path(model.file), model.content)
    exported = load(path)
    wanted = TENSORS[: 3 if model.cutoff is None else 5]
    if len(exported.package.inputs) != len(wanted):
        remedy = "Export `manybody.learn.exported.drivable(energy, example)`, and give `cutoff` where it takes pairs."
        came = f"{len(exported.package.inputs)} tensors"
        raise InputError(Problem(str(path), f"a program of {', '.join(wanted)}", came, remedy))
    return ExportedProvider(exported, model.cutoff)


def _rows(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Rows:
    from manybody.numerics.many_body import rows_within

    return rows_within(positions, cell, pbc, cutoff, SKIN)


def _padded(pairs: np.ndarray, shifts: np.ndarray, cutoff: float, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    filled, moved = np.zeros((2, size), dtype=np.int64), np.zeros((size, 3))
    moved[:, 0] = 2 * (cutoff + SKIN)
    filled[:, : pairs.shape[1]], moved[: pairs.shape[1]] = pairs, shifts
    return torch.from_numpy(filled), torch.from_numpy(moved)
