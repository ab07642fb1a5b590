"""Models as files that others load: TorchScript, torch.export and AOTInductor packages, versioned with their digest.

Beside the file ``NAME.pt`` or ``NAME.pt2`` lies ``NAME.json``: the format, the versions it was made with, the tensors that
it takes, and the digest of the file. A file that is not the one that was written is refused, and so is an AOTInductor
package of another torch, which would crash the process.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from pydantic import ValidationError
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.core.spec import Spec
from manybody.numerics import programs

Format = Literal["torchscript", "export", "aotinductor"]
SUFFIX: dict[str, str] = {"torchscript": ".pt", "export": ".pt2", "aotinductor": ".pt2"}


class TensorKind(Spec):
    """A tensor that a program takes."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> TensorKind:
        """The kind of a tensor."""
        return cls(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


class Package(Spec):
    """What is said beside an exported file. `sha256` is the digest of the file."""

    format: Format
    sha256: str
    inputs: tuple[TensorKind, ...]
    device: str
    torch: str
    manybody: str
    machine: str


@dataclass(frozen=True)
class Exported:
    """A program that was loaded, and what is said of it."""

    package: Package
    program: programs.Program

    def __call__(self, *tensors: Tensor) -> Any:
        """What the program gives. Raises `InputError` for other tensors than it was exported for."""
        kinds = tuple(TensorKind.of(tensor) for tensor in tensors)
        if kinds != self.package.inputs:
            remedy = "Pad to these shapes (`manybody.numerics.programs.capacity`), or export for yours."
            raise InputError(Problem("tensors of an exported program", _told(self.package.inputs), _told(kinds), remedy))
        return self.program(*tensors)


def export(program: torch.nn.Module, example: tuple[Tensor, ...], path: Path, form: Format) -> Package:
    """Write a program for tensors like those of `example` to `path`, and its description beside it; whole or not at all.

    `path` ends in ``.pt`` (torchscript) or ``.pt2``. ``aotinductor`` needs a C++ compiler.
    """
    if form not in SUFFIX or path.suffix != SUFFIX[form]:
        expected = ", ".join(f"{name} in a file *{SUFFIX[name]}" for name in get_args(Format))
        raise InputError(Problem("export", expected, f"{form} in {path.name}", "Choose another format or name."))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        part = Path(folder) / path.name
        if form == "torchscript":
            with programs.no_deprecations():
                programs.script(program, example).save(str(part))
        elif form == "export":
            torch.export.save(torch.export.export(program.eval(), example), part)
        else:
            programs.package(program, example, part)
        package = Package(
            format=form,
            sha256=_digest(part.read_bytes()),
            inputs=tuple(TensorKind.of(tensor) for tensor in example),
            device=example[0].device.type,
            torch=version("torch"),
            manybody=version("manybody"),
            machine=platform.machine(),
        )
        told = part.with_suffix(".json")
        told.write_text(package.model_dump_json(indent=2) + "\n", encoding="utf-8")
        os.replace(told, path.with_suffix(".json"))  # a file without its new description is refused, not misread
        os.replace(part, path)
    return package


def load(path: Path, device: str = "cpu") -> Exported:
    """The program in a file that `export` wrote, verified.

    Raises `InputError` where the file is not the one that was written, or cannot run here. TorchScript and torch.export
    programs run on any `device`, AOTInductor packages on the kind they were made for.
    """
    package = _described(path)
    content = path.read_bytes()
    if _digest(content) != package.sha256:
        came = f"{_digest(content)[:12]}"
        raise InputError(Problem(str(path), f"the file with digest {package.sha256[:12]}", came, "Export the model again."))
    if package.format == "torchscript":
        with programs.no_deprecations():
            return Exported(package, torch.jit.load(io.BytesIO(content), map_location=device))
    if package.format == "export":
        program = torch.export.load(io.BytesIO(content)).module()
        return Exported(package, cast("programs.Program", program.to(device)))
    _refuse_foreign(path, package, device)
    return Exported(package, programs.load_package(path, torch.device(device)))


def _described(path: Path) -> Package:
    beside = path.with_suffix(".json")
    try:
        return Package.model_validate_json(beside.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "Export the model with `manybody.learn.export.export`, and keep both files together."
        raise InputError(Problem(str(path), f"its description in {beside.name}", "no such file", remedy)) from error
    except ValidationError as error:
        came = f"{error.error_count()} wrong fields, first {error.errors()[0]['loc']}"
        raise InputError(Problem(str(beside), "the description of an exported model", came, "Export the model again.")) from error


def _refuse_foreign(path: Path, package: Package, device: str) -> None:
    """An AOTInductor package is machine code against one torch."""
    here = (version("torch"), platform.machine(), torch.device(device).type)
    made = (package.torch, package.machine, package.device)
    if here != made:
        names = ("torch", "machine", "device")
        expected, came = (", ".join(f"{n} {value}" for n, value in zip(names, values, strict=True)) for values in (made, here))
        raise InputError(Problem(str(path), expected, came, "Export the model again here, or take a torch.export file."))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _told(kinds: Sequence[TensorKind]) -> str:
    return ", ".join(f"{kind.dtype} {list(kind.shape)}" for kind in kinds) or "none"
