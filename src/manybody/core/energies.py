"""Energy models: what gives atoms their energy and forces, whoever brings it. Electronvolts and angstroms.

A member of the entry-point group ``manybody.energies`` derives from `EnergyModel`; engines that drive atoms take any.
"""

from __future__ import annotations

import hashlib
import importlib
from abc import ABC
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, cast

import numpy as np
from pydantic import SerializeAsAny

from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.spec import NamedSpec, refuse
from manybody.core.study import member


@dataclass(frozen=True)
class Evaluated:
    """What a model says of atoms: energy, eV; forces [atoms, 3], eV/angstrom; stress [3, 3], eV/angstrom^3.

    Stress is dE/d(strain) over the volume, positive where the crystal pulls together; None where a model has none.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None


class EnergyError(TaskError):
    """A model has no energy for these atoms; `atom` is the one to look at, where the model can tell."""

    def __init__(self, reason: str, atom: int | None = None) -> None:
        self.atom = atom
        super().__init__(reason)


class ForceProvider(Protocol):
    """Energy and forces of atoms, by any model."""

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        """What the model says of atoms.

        positions [atoms, 3] need not be inside the cell; numbers [atoms], atomic; cell [3, 3], rows are lattice vectors,
        zero where there is none; pbc [3]. Raises `EnergyError` where the model gives no energy.
        """

    def forget(self) -> None:
        """Forget what was kept from earlier calls, such as neighbour lists: the same atoms then give the same bits."""


class EnergyModel(NamedSpec, ABC):
    """A model by name, with its parameters; torch-free.

    `provider` is ``module:function`` of the spec, imported only where atoms are driven; it raises `InputError` where the
    model cannot be had.
    """

    provider: ClassVar[str]

    @property
    def roundoff(self) -> float:
        """The relative round-off of its forces: single precision, unless a model knows better."""
        return 1.2e-7

    @property
    def known_elements(self) -> tuple[str, ...]:
        """Symbols of the elements it knows, those of its field `elements` if it has one; empty: only the model can tell."""
        return tuple(getattr(self, "elements", ()))

    def load(self) -> ForceProvider:
        """The model, ready to evaluate."""
        module, _, name = self.provider.partition(":")
        return cast("ForceProvider", getattr(importlib.import_module(module), name)(self))


Energy = Annotated[SerializeAsAny[EnergyModel], member("energies")]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def identified(cls: type[NamedSpec], given: Any, field: str, locate: Any = Path) -> Path | None:
    """The file that `given` names by `field`, where its ``content`` is still to be found; None where it is known.

    For validators of specs that are identified by a file's content. Refuses a name that is no file.
    """
    if not isinstance(given, dict) or given.get("content"):
        return None
    info = cls.model_fields[field]
    name = given.get(field, None if info.is_required() else info.default)
    if not isinstance(name, str) or not locate(name).is_file():
        refuse(field, "a file", f"`{name}`", "Give its path from where you run.")
    return cast("Path", locate(name))


def verified(path: Path, content: str) -> Path:
    """`path`, where it is a file of that content. Raises `InputError` for any other."""
    if path.is_file() and digest_of(path) == content:
        return path
    came = "other content" if path.is_file() else "no such file"
    remedy = "Copy the files of the study to this machine, or run it where they are."
    raise InputError(Problem(str(path), f"a file of content {content[:12]}", came, remedy))
