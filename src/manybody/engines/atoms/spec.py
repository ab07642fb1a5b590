"""Crystals and structures from files, driven by any energy model: typed, torch-free.

Numbers are in angstroms, electronvolts and u, so times are in angstrom sqrt(u / eV) = 10.18 fs and temperatures are k_B T in eV.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from manybody.core.dynamics import Leg, Thermostat, chain, refuse_unless_times_nest, segments
from manybody.core.energies import Energy, digest_of, identified, verified
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import Spec, refuse
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import Length, Temperature, Time, UnitSystem
from manybody.engines.atoms.energies.spec import locate

if TYPE_CHECKING:
    import ase

ATOMIC_UNITS = UnitSystem(length=1e-10, energy=1.602176634e-19, mass=1.66053906660e-27)
KELVIN = 1.380649e-23 / 1.602176634e-19  # k_B in eV/K
FEMTOSECOND = 1e-15 / math.sqrt(1.66053906660e-27 / 1.602176634e-19) / 1e-10  # in angstrom sqrt(u / eV)
GIGAPASCAL = 1e9 * 1e-30 / 1.602176634e-19  # in eV/angstrom^3

Lattice = Literal["sc", "fcc", "bcc", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite"]
PER_CELL = {"sc": 1, "fcc": 4, "bcc": 2, "diamond": 8, "zincblende": 8, "rocksalt": 8, "cesiumchloride": 2, "fluorite": 12}


class AtomsSystem(SystemSpec, ABC):
    """Atoms and the model that gives their energy: what crystals and structures share."""

    scales: ClassVar[UnitSystem | None] = ATOMIC_UNITS
    conserved: ClassVar[tuple[str, ...]] = ("energy", "momentum")

    temperature: Temperature = Field(300 * KELVIN, gt=0, examples=[300 * KELVIN], description="temperature")
    energy: Energy = Field(default={"name": "eam"}, validate_default=True, description="what gives energy and forces")

    @abstractmethod
    def atoms(self) -> ase.Atoms:
        """The atoms at the start, in angstroms."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many atoms there are."""

    def _refuse_unknown(self, elements: tuple[str, ...]) -> None:
        known = self.energy.known_elements
        missing = [element for element in elements if known and element not in known]
        if missing:
            refuse("energy", f"a model that knows {', '.join(missing)}", f"one for {', '.join(known)}", "Choose another model.")


class Crystal(AtomsSystem):
    """A cubic crystal by the name of its lattice, repeated along its axes, periodic."""

    summary: ClassVar[str] = "a cubic crystal, repeated, driven by any energy model"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation of equal atoms", "cubic rotation")

    name: Literal["crystal"] = "crystal"
    material: str = Field("Cu", description="element, or formula such as `NaCl`")
    lattice: Lattice = Field("fcc", description="the lattice, as ASE names it")
    lattice_constant: Length = Field(3.61, gt=1.0, lt=30.0, description="edge of the cubic cell")
    repeat: tuple[int, int, int] = Field((4, 4, 4), description="cubic cells along each axis")

    @property
    def count(self) -> int:
        """Atoms of all cells."""
        return PER_CELL[self.lattice] * math.prod(self.repeat)

    @model_validator(mode="after")
    def _possible(self) -> Crystal:
        if min(self.repeat) < 1 or self.count > 10_000_000:
            refuse("repeat", "three whole numbers from 1 on, 10 million atoms at most", self.repeat, "Take fewer cells.")
        try:
            unit = self._unit()
        except (ValueError, KeyError, RuntimeError) as error:
            refuse("material", f"what a {self.lattice} lattice can be made of", f"`{self.material}` ({error})", "Mend either.")
        self._refuse_unknown(tuple(dict.fromkeys(unit.get_chemical_symbols())))
        return self

    def _unit(self) -> ase.Atoms:
        from ase.build import bulk

        return bulk(self.material, self.lattice, a=self.lattice_constant, cubic=True)

    def atoms(self) -> ase.Atoms:
        """The crystal at rest on its lattice."""
        return self._unit().repeat(self.repeat)


class Structure(AtomsSystem):
    """Atoms from any file that ASE reads: extended XYZ, CIF, POSCAR and many more; the last configuration in it.

    `content` and `elements` are found when the study is read: a node whose file differs refuses the task.
    """

    summary: ClassVar[str] = "atoms from a file (extended XYZ, CIF, POSCAR, ..), driven by any energy model"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation of equal atoms")

    name: Literal["structure"] = "structure"
    file: str = Field("copper-cell.xyz", description="a file that ASE reads: yours, or the name of one shipped")
    repeat: tuple[int, int, int] = Field((1, 1, 1), description="copies of the cell along each of its vectors")
    content: str = Field("", description="SHA-256 of the file; leave it out, and it is found")
    elements: tuple[str, ...] = Field((), description="symbols of its atoms, in order; leave them out, and they are found")

    @property
    def count(self) -> int:
        """Atoms of all copies."""
        return len(self.elements) * math.prod(self.repeat)

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, given: Any) -> Any:
        path = identified(cls, given, "file", locate)
        if path is None:
            return given
        return given | {"content": digest_of(path), "elements": tuple(_read(path).get_chemical_symbols())}

    @model_validator(mode="after")
    def _possible(self) -> Structure:
        if min(self.repeat) < 1 or self.count > 10_000_000:
            refuse("repeat", "three whole numbers from 1 on, 10 million atoms at most", self.repeat, "Take fewer copies.")
        if not self.elements:
            refuse("file", "at least one atom", f"none in `{self.file}`", "Give another file.")
        self._refuse_unknown(tuple(dict.fromkeys(self.elements)))
        return self

    def atoms(self) -> ase.Atoms:
        """The atoms of the file, repeated. Raises `InputError` where it is not the file that was asked for."""
        atoms = _read(verified(locate(self.file), self.content))
        return atoms.repeat(self.repeat) if self.repeat != (1, 1, 1) else atoms


def system_of(document: Mapping[str, Any]) -> AtomsSystem:
    """The crystal or structure of a task's document."""
    return (Crystal if document["name"] == "crystal" else Structure).model_validate(document)


def _read(path: Path) -> ase.Atoms:
    """The last configuration of a file; refused where ASE cannot read it."""
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    try:
        atoms = ase.io.read(path)
    except (UnknownFileTypeError, AssertionError, ValueError, LookupError, OSError, StopIteration, SyntaxError) as error:
        refuse("file", "a file that ASE reads", f"`{path}` ({type(error).__name__}: {error})", "Convert it to extended XYZ.")
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if not np.isfinite(bare.positions).all() or (bare.numbers < 1).any():
        refuse("file", "atoms with an element and finite positions", f"`{path}`", "Mend the file.")
    return bare


class AtomsDynamics(MethodSpec):
    """Newton's equations by velocity Verlet, with a thermostat at mid-step (BAOAB), on the forces of the energy model.

    A realisation is a chain of tasks: equilibrate, then segments, each starting from the state the one before ended in.
    """

    summary: ClassVar[str] = "dynamics of atoms by any energy model: NVE, or NVT by velocity rescaling or Langevin"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("crystal", "structure")
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.atoms.stages:equilibrate",
        "produce": "manybody.engines.atoms.stages:produce",
        "conserve": "manybody.engines.atoms.stages:conserve",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="without a thermostat the energy fluctuates with the square of the time step (velocity Verlet)",
    )

    name: Literal["atoms-dynamics"] = "atoms-dynamics"
    thermostat: Thermostat = Field("bussi", description="`bussi` (stochastic velocity rescaling), `langevin`, or `none` (NVE)")
    thermostat_time: Time = Field(100 * FEMTOSECOND, gt=0, description="relaxation time of the thermostat")
    time_step: Time = Field(2 * FEMTOSECOND, gt=0, le=20 * FEMTOSECOND, description="time step; 0.5 fs where hydrogen moves")
    equilibration: Time = Field(1000 * FEMTOSECOND, gt=0, description="simulated time before anything is measured")
    duration: Time = Field(10_000 * FEMTOSECOND, gt=0, description="simulated time that is measured, each repeat")
    segment: Time = Field(5000 * FEMTOSECOND, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(20 * FEMTOSECOND, gt=0, description="simulated time between samples of energy and pressure")
    frame_every: Time = Field(200 * FEMTOSECOND, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> AtomsDynamics:
        refuse_unless_times_nest(self)
        return self

    def leg(self, **changes: Any) -> Leg:
        """A leg with this method's settings, changed where said."""
        return Leg.of(self, **changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, AtomsSystem)
        # Langevin thermalises every motion on its own, whatever energy the start had in it.
        start = self._task("equilibrate", system, self.leg(thermostat="langevin", time=self.equilibration), seed, repeat)
        leg, count = self.leg(time=self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, leg, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The effective energy (energy less heat taken from the thermostat), and momentum where no noise breaks it."""
        assert isinstance(system, AtomsSystem)
        # A drift heats the system until the thermostat carries it off: the offset of T is about drift x thermostat_time.
        offset = 5e-4
        energy = Conserved(
            series="effective_energy",
            claim="the energy less the heat from the thermostat does not drift, in kT per degree of freedom per 10.18 fs",
            tolerance=offset / self.thermostat_time,
            tolerance_from=f"a drift that would offset the temperature by {offset:g} of itself, less than a study resolves",
        )
        if self.thermostat == "langevin":
            return (energy,)
        # Forces of an electronvolt an angstrom cancel to the model's round-off, in random directions.
        steps = self.leg(time=self.segment).steps
        per_step = system.energy.roundoff * self.time_step / math.sqrt(system.temperature)
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays what it was, in thermal momenta of one atomic mass unit",
            tolerance=100 * math.sqrt(steps * system.count) * per_step,
            tolerance_from=f"a hundred times the round-off of the model, {system.energy.roundoff:g}, in forces of 1 eV/angstrom "
            f"on {system.count} atoms over {steps} random steps",
            drift=False,
        )
        return (energy, momentum)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A run without a thermostat from where the realisation ended, its time step multiplied by `factor`."""
        last, system, step = realisation.tasks[-1], realisation.point.system, self.time_step * factor
        leg = self.leg(thermostat="none", time_step=step, time=500 * self.time_step, sample_every=step, frame_every=500 * step)
        assert isinstance(system, AtomsSystem)
        return self._task("conserve", system, leg, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: AtomsSystem, leg: Leg, seed: int, repeat: int, inputs: dict[str, str] | None = None
    ) -> Task:
        # core-seconds a step of embedded atoms, on a core of the 2020s
        return self.task(stage, system, leg, seed, repeat, leg.steps * (1e-4 + 2e-6 * system.count), inputs)


class Relaxation(Spec):
    """How far atoms and cell are relaxed, and by how much atoms are moved at random before."""

    force_tolerance: float
    steps: int
    cell: bool
    rattle: float


class Strains(Spec):
    """By how much a relaxed crystal is strained."""

    strain: float
    volumes: int
    range: float
    force_tolerance: float
    steps: int


class AtomsStatics(MethodSpec):
    """The ground state: atoms and cell relaxed, then strained. Equation of state, and elastic constants from stresses.

    Atoms relax inside every strained cell, so the constants are those of the relaxed crystal.
    """

    summary: ClassVar[str] = "relaxation of atoms and cell, equation of state, and elastic constants by finite strain"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("crystal", "structure")
    stages: ClassVar[Mapping[str, str]] = {
        "relax": "manybody.engines.atoms.statics:relax",
        "strain": "manybody.engines.atoms.statics:strain",
    }
    extent: ClassVar[str] = "steps"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="strain",
        parameter="strain",
        quantity="elastic_difference",
        order=2,
        claim="elastic constants from central differences converge with the square of the strain",
    )

    name: Literal["atoms-statics"] = "atoms-statics"
    force_tolerance: float = Field(1e-8, gt=0, description="largest force left, eV/angstrom; on the cell, per atom")
    steps: int = Field(500, ge=1, description="most steps of an optimiser before a relaxation is given up")
    cell: bool = Field(True, description="whether the cell relaxes too")
    rattle: Length = Field(0.02, ge=0, le=0.3, description="standard deviation of random moves before atoms relax")
    strain: float = Field(1e-2, gt=0, le=0.05, description="strain at which stresses are taken for the elastic constants")
    volumes: int = Field(13, ge=5, le=201, description="volumes of the equation of state")
    range: float = Field(0.06, gt=0, le=0.3, description="how far volumes go either way, of the relaxed volume")

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Relaxation, then strains; the latter carries what is measured."""
        assert isinstance(system, AtomsSystem)
        relaxation = Relaxation(force_tolerance=self.force_tolerance, steps=self.steps, cell=self.cell, rattle=self.rattle)
        first = self._task("relax", system, relaxation, seed, repeat, {}, 50)
        last = self._strained(system, self.strain, seed, repeat, first.digest)
        return (first, last), (last,)

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Nothing moves."""
        return ()

    def extended(self, scale: float) -> MethodSpec:
        """The same: a ground state has no extent."""
        return self

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """The same strains, `factor` times as large."""
        first, system = realisation.tasks[0], realisation.point.system
        assert isinstance(system, AtomsSystem)
        return self._strained(system, self.strain * factor, first.seed, realisation.repeat, first.digest)

    def _strained(self, system: AtomsSystem, strain: float, seed: int, repeat: int, state: str) -> Task:
        parameters = Strains(
            strain=strain, volumes=self.volumes, range=self.range, force_tolerance=self.force_tolerance, steps=self.steps
        )
        return self._task("strain", system, parameters, seed, repeat, {"state": state}, 24 + self.volumes)

    def _task(
        self, stage: str, system: AtomsSystem, parameters: Spec, seed: int, repeat: int, inputs: dict[str, str], calls: int
    ) -> Task:
        return self.task(stage, system, parameters, seed, repeat, calls * 10 * (1e-4 + 2e-6 * system.count), inputs)
