"""Boxes of water, molecules from files in vacuum or in a box, and their dynamics: typed, torch-free.

Numbers are in nm, kJ/mol and u, so times are in ps and temperatures are k_B T in kJ/mol.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from manybody.core.dynamics import Leg, Thermostat, chain, refuse_unless_times_nest, segments
from manybody.core.errors import InputError
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import PRESSURE, Dimension, Length, Temperature, Time, UnitSystem
from manybody.engines.molecules.cells import RIGHT, Triple, directions, heights
from manybody.engines.molecules.terms import Term, topology_of, with_terms

AVOGADRO = 6.02214076e23
MOLECULAR_UNITS = UnitSystem(length=1e-9, energy=1e3 / AVOGADRO, mass=1e-3 / AVOGADRO)
KELVIN = 1.380649e-23 * AVOGADRO / 1e3  # k_B in kJ/(mol K)
OXYGEN_MASS, HYDROGEN_MASS = 15.999, 1.008  # u, IUPAC's abridged standard atomic weights
WATER_MASS = OXYGEN_MASS + 2 * HYDROGEN_MASS
FILES = Path(__file__).parent / "files"

TOPOLOGY = "an Amber prmtop, GROMACS top or LAMMPS data file, or one shipped"
COORDINATES = "its inpcrd, gro or PDB; the LAMMPS file again"

WaterModel = Literal["spce", "tip3p"]
Electrostatics = Literal["pme", "reaction-field"]
Rigid = Literal["none", "water", "h-bonds"]
Pressure = Annotated[float, PRESSURE]
MassDensity = Annotated[float, Dimension("mass density", "g/cm^3", length=-3, mass=1)]


class MolecularSystem(SystemSpec):
    """Molecules with a force field, in vacuum or in a periodic box."""

    scales: ClassVar[UnitSystem | None] = MOLECULAR_UNITS
    conserved: ClassVar[tuple[str, ...]] = ("energy", "momentum")

    temperature: Temperature = Field(gt=0, examples=[300 * KELVIN], description="temperature")

    @property
    def step_seconds(self) -> float:
        """What a time step takes on one core of the 2020s, for some tens of atoms."""
        return 1e-4


@dataclass(frozen=True)
class Contents:
    """How many atoms and molecules are in a box, their mass, u, its edges, nm, and its angles, degrees."""

    atoms: int
    molecules: int
    mass: float
    edges: Triple
    angles: Triple = RIGHT

    @property
    def volume(self) -> float:
        """Volume of the box, nm^3."""
        return math.prod(self.edges) * float(directions(self.angles).diagonal().prod())

    @property
    def width(self) -> float:
        """The smallest distance between opposite faces, nm: the shortest edge where angles are right."""
        return min(heights(self.edges, self.angles))


class BoxOfMolecules(MolecularSystem, ABC):
    """Molecules in a periodic box: how far they interact. A kind of box says what is in it, and how large it is."""

    cutoff: Length = Field(0.9, gt=0.4, description="Lennard-Jones pairs further apart do not interact; at most half the box")
    switch: Length = Field(0.8, gt=0.3, description="where the Lennard-Jones energy begins to be switched off; the cutoff: not")
    tail_correction: bool = Field(True, description="add the analytic contribution of Lennard-Jones pairs beyond the cutoff")
    electrostatics: Electrostatics = Field("pme", description="`pme` (particle-mesh Ewald), or `reaction-field` at the cutoff")
    force_error: float = Field(5e-5, ge=1e-8, le=1e-2, description="root-mean-square error of particle-mesh Ewald's forces")
    permittivity: float = Field(78.3, ge=1, description="relative permittivity beyond the cutoff of a reaction field")

    @property
    @abstractmethod
    def contents(self) -> Contents:
        """What is in the box, and how large it is to begin with."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do where the box is too small for the cutoff."""

    @property
    def step_seconds(self) -> float:
        """What a time step takes on one core of the 2020s."""
        return 3e-6 * self.contents.atoms

    @model_validator(mode="after")
    def _cutoffs_fit(self) -> Self:
        half = self.contents.width / 2
        if self.cutoff > half:
            box = "box" if self.contents.angles == RIGHT else "distance between opposite faces of the box"
            refuse("cutoff", f"at most half the {box}, {half:.4g} nm", f"{self.cutoff:g} nm", self.remedy)
        if self.switch > self.cutoff:
            refuse("switch", f"at most the cutoff, {self.cutoff:g} nm", f"{self.switch:g} nm", f"Take {self.cutoff - 0.1:g} nm.")
        return self


class FromFiles(MolecularSystem):
    """Molecules whose force field and coordinates are in files.

    `content` is the SHA-256 of both files, found when the study is read: a node whose files differ refuses the task.
    """

    topology: str = Field(description=TOPOLOGY)
    coordinates: str = Field(description=COORDINATES)
    rigid: Rigid
    terms: tuple[Term, ...] = Field((), max_length=64, description="energies by formula, besides those of the force field")
    content: str = Field("", description="SHA-256 of both files; leave it out, and it is found")

    @property
    def paths(self) -> tuple[Path, Path]:
        """Where topology and coordinates lie on this machine."""
        return locate(self.topology), locate(self.coordinates)

    @property
    def is_at_hand(self) -> bool:
        """Whether both files are on this machine, as they were."""
        return all(path.is_file() for path in self.paths) and content_of(*self.paths) == self.content

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("content"):
            return given
        names = [given.get(field, cls.model_fields[field].default) for field in ("topology", "coordinates")]
        for field, name in zip(("topology", "coordinates"), names, strict=True):
            if not isinstance(name, str) or not locate(name).is_file():
                shipped = ", ".join(sorted(path.name for path in FILES.glob("*.*") if path.suffix != ".md"))
                refuse(field, f"a file, or one of {shipped}", f"`{name}`", "Give its path from where you run.")
        paths = [locate(name) for name in names]
        return given | {"content": content_of(*paths)} | cls.looked_up(*paths)

    @classmethod
    def looked_up(cls, topology: Path, coordinates: Path) -> dict[str, Any]:
        """What else is found in the files when a study is read, by field."""
        return {}

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if self.terms and self.is_at_hand:
            try:
                with_terms(topology_of(*self.paths, self.content), self.terms, isinstance(self, BoxOfMolecules))
            except InputError as error:
                (problem,) = error.problems
                refuse("terms", f"{problem.expected} ({problem.where})", problem.came, problem.remedy)
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return {name: value for name, value in document.items() if name not in self.unused}

    @property
    def unused(self) -> set[str]:
        """Fields that are left out of the document: studies from before there were such stay the same."""
        return set() if self.terms else {"terms"}


class WaterBox(BoxOfMolecules):
    """Rigid three-site water in a periodic cube."""

    summary: ClassVar[str] = "rigid water (SPC/E or TIP3P) in a periodic cube, with particle-mesh Ewald"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "cubic rotation")

    name: Literal["water-box"] = "water-box"
    density: MassDensity = Field(600.4, gt=60, lt=1000, description="mass per volume")
    model: WaterModel = Field("spce", description="`spce` (Berendsen 1987) or `tip3p` (Jorgensen 1983)")
    molecules: int = Field(216, ge=32, le=1_000_000, description="number of molecules")

    @property
    def contents(self) -> Contents:
        """Three atoms a molecule, in a cube."""
        return Contents(3 * self.molecules, self.molecules, self.molecules * WATER_MASS, (self.box, self.box, self.box))

    @property
    def remedy(self) -> str:
        """A smaller cutoff, or more of the same."""
        least = math.ceil((2 * self.cutoff) ** 3 * self.density / WATER_MASS)
        return f"Lower the cutoff, or take at least {least} molecules at this density."

    @property
    def box(self) -> float:
        """Edge of the periodic cube, nm."""
        return math.cbrt(self.molecules * WATER_MASS / self.density)


class Molecule(FromFiles):
    """A molecule in vacuum, its force field from files of Amber, GROMACS or LAMMPS."""

    summary: ClassVar[str] = "a molecule in vacuum, with a force field from files of Amber, GROMACS or LAMMPS"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "rotation")

    name: Literal["molecule"] = "molecule"
    topology: str = Field("alanine-dipeptide.prmtop", description=TOPOLOGY)
    coordinates: str = Field("alanine-dipeptide.inpcrd", description=COORDINATES)
    rigid: Literal["none", "h-bonds"] = Field(
        "h-bonds", description="`h-bonds` keeps the bonds to hydrogen rigid, for steps of 2 fs; `none`"
    )


def locate(name: str) -> Path:
    """A file by its path, or the one of that name that is shipped."""
    shipped = FILES / name
    return shipped if Path(name).name == name and shipped.is_file() else Path(name)


def content_of(*paths: Path) -> str:
    """SHA-256 of the files' digests, one after the other."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


class MoleculeLeg(Leg):
    """A stretch of dynamics of molecules: at constant pressure where `pressure` is given, moved each `volume_every`.

    Slow forces act after `slow_every` time steps.
    """

    pressure: Pressure | None = None
    volume_every: Time | None = None
    slow_every: int = 1

    @property
    def long_step(self) -> float:
        """Time between kicks of the slow forces: a step of the engine."""
        return self.time_step * self.slow_every

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(handler(self))


def without_unused(document: dict[str, Any]) -> dict[str, Any]:
    """A document without settings that are not made use of: studies from before there were such stay the same."""
    unused = {"pressure", "volume_every"} if document["pressure"] is None else set()
    unused |= {"slow_every"} if document["slow_every"] == 1 else set()
    return {name: value for name, value in document.items() if name not in unused}


class ForceFieldDynamics(MethodSpec):
    """Newton's equations with rigid bonds by a symmetric splitting, with a thermostat at mid-step (geodesic BAOAB).

    A realisation is a chain of tasks: equilibrate, then segments, each starting from the state the one before ended in.
    With a `pressure`, the volume of a box is moved at random and accepted or not, after each `volume_every`.
    """

    summary: ClassVar[str] = (
        "molecules with rigid bonds: NVE, NVT by velocity rescaling or Langevin, or NPT by a Monte Carlo barostat"
    )
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("water-box", "molecule", "molecular-box")
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.molecules.stages:equilibrate",
        "produce": "manybody.engines.molecules.stages:produce",
        "conserve": "manybody.engines.molecules.stages:conserve",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="without a thermostat the energy fluctuates with the square of the time step (velocity Verlet)",
    )

    name: Literal["force-field-dynamics"] = "force-field-dynamics"
    thermostat: Thermostat = Field("bussi", description="`bussi` (stochastic velocity rescaling), `langevin`, or `none` (NVE)")
    thermostat_time: Time = Field(0.5, gt=0, description="relaxation time of the thermostat")
    time_step: Time = Field(0.002, gt=0, le=0.004, description="time step; above 4 fs water turns too far in one step")
    pressure: Pressure | None = Field(None, description="keep this pressure instead of the volume; leave it out for none")
    volume_every: Time = Field(0.05, gt=0, description="simulated time between moves of the volume")
    slow_every: int = Field(1, ge=1, le=8, description="time steps after which Ewald's mesh, or pairs in vacuum, act (r-RESPA)")
    equilibration: Time = Field(20.0, gt=0, description="simulated time before anything is measured")
    duration: Time = Field(100.0, gt=0, description="simulated time that is measured, each repeat")
    segment: Time = Field(25.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.02, gt=0, description="simulated time between samples of energy and pressure")
    frame_every: Time = Field(0.5, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> ForceFieldDynamics:
        refuse_unless_times_nest(self)
        for field in ("sample_every",) if self.pressure is None else ("sample_every", "volume_every"):
            ratio = getattr(self, field) / (self.slow_every * self.time_step)
            if abs(ratio - round(ratio)) > 1e-6 * ratio or ratio < 1 - 1e-9:
                expected = f"a whole multiple of slow_every time steps, {self.slow_every * self.time_step:g}"
                refuse(field, expected, f"{getattr(self, field):g}", "Change one of the two.")
        if self.pressure is not None and self.thermostat == "none":
            refuse("thermostat", "a thermostat at constant pressure", "none", "Take `bussi` or `langevin`.")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(handler(self))

    def suits(self, system: SystemSpec) -> None:
        """No pressure in vacuum. Bonds to hydrogen that are not rigid oscillate within 9 fs: they need steps of a fs or less."""
        if isinstance(system, BoxOfMolecules) and system.electrostatics != "pme" and self.slow_every > 1:
            remedy = "Take `electrostatics: pme`, or leave it out."
            refuse("slow_every", "1 without particle-mesh Ewald", f"{self.slow_every}", remedy)
        if not isinstance(system, BoxOfMolecules) and self.pressure is not None:
            remedy = "Leave it out, or take a `water-box` or `molecular-box`."
            refuse("pressure", "none for a molecule in vacuum", f"{self.pressure:g}", remedy)
        if isinstance(system, FromFiles) and system.rigid != "h-bonds" and self.time_step > 0.00125:
            remedy = "Take `time_step: 1 fs`, or `rigid: h-bonds` in the system."
            refuse("time_step", "at most 1.25 fs where bonds to hydrogen are flexible", f"{1e3 * self.time_step:g} fs", remedy)

    def leg(self, **changes: Any) -> MoleculeLeg:
        """A leg with this method's settings, changed where said."""
        return MoleculeLeg.of(self, **changes)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, MolecularSystem)
        # Langevin thermalises every motion on its own, whatever energy the start had in it.
        start = self._task("equilibrate", system, self.leg(thermostat="langevin", time=self.equilibration), seed, repeat)
        leg, count = self.leg(time=self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, leg, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The effective energy (energy less heat taken from the thermostat), and momentum where no noise breaks it."""
        assert isinstance(system, MolecularSystem)
        # A drift heats the system until the thermostat carries it off: the offset of T is about drift x thermostat_time.
        offset = 5e-4
        energy = Conserved(
            series="effective_energy",
            claim="the energy less the heat from the thermostat does not drift, in kT per degree of freedom per ps",
            tolerance=offset / self.thermostat_time,
            tolerance_from=f"a drift that would offset the temperature by {offset:g} of itself, less than a study resolves",
        )
        if self.thermostat == "langevin":
            return (energy,)
        # A rigid bond is kept by moving its atoms, so each step rounds positions, and velocities by that over the step.
        steps, atoms, size = self.leg(time=self.segment).steps, 1000, 1.0
        if isinstance(system, BoxOfMolecules):
            atoms, size = system.contents.atoms, max(system.contents.edges)
        per_step = 2.3e-16 * size / self.time_step * OXYGEN_MASS / math.sqrt(system.temperature)
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays what it was, in thermal momenta of one atomic mass unit",
            tolerance=100 * math.sqrt(steps * atoms) * per_step,
            tolerance_from=f"a hundred times the round-off of positions in {steps} random steps of {atoms} atoms",
            drift=False,
        )
        return (energy, momentum)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A run without a thermostat from where the realisation ended, its time step multiplied by `factor`."""
        last = realisation.tasks[-1]
        point = realisation.point
        step, long = self.time_step * factor, self.time_step * factor * self.slow_every
        leg = self.leg(
            thermostat="none", pressure=None, time_step=step, time=500 * self.time_step * self.slow_every,
            sample_every=long, frame_every=500 * long,
        )  # fmt: skip
        assert isinstance(point.system, MolecularSystem)
        return self._task("conserve", point.system, leg, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self,
        stage: str,
        system: MolecularSystem,
        leg: MoleculeLeg,
        seed: int,
        repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:
        return self.task(stage, system, leg, seed, repeat, leg.steps * system.step_seconds, inputs)
