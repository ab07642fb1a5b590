"""The one place that compiles tensor programs: eager, TorchScript, torch.compile or AOTInductor, by one switch.

A program is a module of tensors of fixed shapes. Where a count changes from call to call, as that of neighbours does, the
tensors are padded to a `capacity` that changes seldom, so that a compiled program is compiled once.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from manybody.core.errors import InputError, Problem

Form = Literal["eager", "torchscript", "compile", "aotinductor"]
Program = Callable[..., Any]
GROWTH = 1.25  # of capacities: a fifth of the work at most is on padding, and a size lasts


@contextmanager
def no_deprecations() -> Iterator[None]:
    """Without torch's warnings of itself: TorchScript is deprecated, and still what LAMMPS, OpenMM-Torch and i-PI load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        yield


def with_forces(energy: Callable[..., Tensor], example: tuple[Tensor, ...]) -> torch.fx.GraphModule:
    """The program that gives energy [] and forces [atoms, 3], from one that gives the energy of positions and other tensors.

    The first of `example` are the positions [atoms, 3]. The derivative is taken once, here: what comes out has no autograd
    in it and can be compiled and exported in any form, for tensors of the shapes of `example`.
    """

    def both(positions: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = torch.func.grad_and_value(energy)(positions, *rest)
        return value, -gradient

    return cast("torch.fx.GraphModule", make_fx(both)(*example))


def compiled(program: torch.nn.Module, example: tuple[Tensor, ...], form: Form) -> Program:
    """`program`, compiled for tensors like those of `example`; ``compile`` and ``aotinductor`` need a C++ compiler."""
    if form == "eager":
        return cast("Program", program)
    if form == "compile":
        return cast("Program", torch.compile(program, fullgraph=True, dynamic=False))
    if form == "torchscript":
        return cast("Program", script(program, example))
    if form == "aotinductor":
        with tempfile.TemporaryDirectory(prefix="manybody-program-") as folder:
            package(program, example, Path(folder) / "program.pt2")
            return load_package(Path(folder) / "program.pt2", example[0].device)
    known = ", ".join(get_args(Form))
    raise InputError(Problem("form of a program", f"one of {known}", f"`{form}`", "Choose one of these."))


def fused(function: Callable[..., Tensor], backend: str = "inductor") -> Callable[..., Tensor]:
    """A function of tensors as one generated kernel, for any length of its arguments: Triton's on CUDA, C++ on a CPU.

    It is compiled when it is first called. Raises where it cannot be one: nothing falls back to torch's own kernels unseen.
    """
    return cast("Callable[..., Tensor]", torch.compile(function, fullgraph=True, dynamic=True, backend=backend))


def script(program: torch.nn.Module, example: tuple[Tensor, ...]) -> torch.jit.ScriptModule:
    """As TorchScript, traced: what the program does for tensors like `example` it does for all, branches included."""
    with no_deprecations():
        return cast("torch.jit.ScriptModule", torch.jit.trace(program.eval(), example))


def package(program: torch.nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Compile ahead of time by AOTInductor, into a package at `path` (``.pt2``)."""
    with no_deprecations():
        from torch._inductor import aoti_compile_and_package

        aoti_compile_and_package(torch.export.export(program.eval(), example), package_path=str(path))


def load_package(path: Path, device: torch.device) -> Program:
    """The program of a package, on the kind of device that it was compiled for."""
    with no_deprecations():
        from torch._inductor import aoti_load_package

        return cast("Program", aoti_load_package(str(path), device_index=device.index if device.index is not None else -1))


# --- padding -----------------------------------------------------------------------------------------------------


def capacity(count: int, least: int = 256) -> int:
    """The smallest size of the series least, 1.25 least, 1.5625 least, .. (rounded up) that holds `count`."""
    size = least
    while size < count:
        size = int(size * GROWTH) + 1
    return size


def padded_pairs(pairs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pairs [2, size] of atoms, filled up with the pair (0, 0), and which of them are real [size]; pairs [2, n], n <= size."""
    missing = size - pairs.shape[1]
    if missing < 0:
        raise ValueError(f"expected at most {size} pairs; got {pairs.shape[1]}. Ask `capacity` for a larger size.")
    real = torch.arange(size, device=pairs.device) < pairs.shape[1]
    return torch.nn.functional.pad(pairs, (0, missing)), real
