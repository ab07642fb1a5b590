"""The energy models that this engine brings: typed, torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from manybody.core.energies import Energy, EnergyModel, digest_of, identified
from manybody.core.errors import InputError
from manybody.core.spec import refuse

FILES = Path(__file__).parents[1] / "files"
COPPER = "copper-sutton-chen.eam.alloy"


def locate(name: str) -> Path:
    """A file by its path, or the one of that name that is shipped."""
    shipped = FILES / name
    return shipped if Path(name).name == name and shipped.is_file() else Path(name)


class EmbeddedAtomModel(EnergyModel):
    """An embedded-atom potential from a setfl or funcfl file, by a compiled kernel.

    `content` and `elements` are found when the study is read; a node whose file differs refuses the task.
    """

    summary: ClassVar[str] = "an embedded-atom potential from a setfl or funcfl file, by a compiled kernel"
    provider: ClassVar[str] = "manybody.engines.atoms.energies.eam:provider"

    name: Literal["eam"] = "eam"
    file: str = Field(COPPER, description="a file *.eam.alloy, *.eam.fs or *.eam: yours, or the name of one shipped")
    content: str = Field("", description="SHA-256 of the file; leave it out, and it is found")
    elements: tuple[str, ...] = Field((), description="elements of the file; leave them out, and they are found")

    @property
    def roundoff(self) -> float:
        """Double precision."""
        return 2.3e-16

    @property
    def path(self) -> Path:
        """Where the file lies on this machine."""
        return locate(self.file)

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, given: Any) -> Any:
        path = identified(cls, given, "file", locate)
        if path is None:
            return given
        from manybody.engines.atoms.eam_file import elements_of

        try:
            return given | {"content": digest_of(path), "elements": elements_of(path)}
        except InputError as error:
            problem = error.problems[0]
            refuse("file", problem.expected, problem.came, problem.remedy)


class CalculatorModel(EnergyModel):
    """Any calculator of ASE, by import path and keyword arguments.

    It computes on the machine that runs the task, so a machine runs only those it trusts: `TRUSTED`, and classes of the
    packages that its owner names in ``MANYBODY_CALCULATORS``, separated by commas.
    """

    summary: ClassVar[str] = "any ASE calculator, by import path and keyword arguments"
    provider: ClassVar[str] = "manybody.engines.atoms.energies.calculator:provider"

    name: Literal["calculator"] = "calculator"
    path: str = Field("ase.calculators.emt.EMT", description="import path of the class, such as `ase.calculators.emt.EMT`")
    arguments: dict[str, str | int | float | bool | None] = Field({}, description="keyword arguments that it is made with")

    @field_validator("path")
    @classmethod
    def _is_path(cls, path: str) -> str:
        if "." not in path or not all(part.isidentifier() for part in path.split(".")):
            refuse("path", "an import path such as `ase.calculators.emt.EMT`", f"`{path}`", "Write module and class.")
        return path


class SumModel(EnergyModel):
    """The sum of two models, such as a classical one and a learned correction to it. Either may be a sum."""

    summary: ClassVar[str] = "the sum of two models: a classical one and a learned correction (delta-learning)"
    provider: ClassVar[str] = "manybody.engines.atoms.energies.sum:provider"

    name: Literal["sum"] = "sum"
    base: Energy = Field(default={"name": "eam"}, validate_default=True, description="the first model")
    correction: Energy = Field(default={"name": "calculator"}, validate_default=True, description="what is added to it")

    @property
    def roundoff(self) -> float:
        """That of the less precise one."""
        return max(self.base.roundoff, self.correction.roundoff)

    @property
    def known_elements(self) -> tuple[str, ...]:
        """What both know; empty where either cannot tell."""
        first, second = self.base.known_elements, self.correction.known_elements
        return tuple(element for element in first if element in second) if first and second else first or second
