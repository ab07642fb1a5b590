"""A Lennard-Jones particle in a Lennard-Jones liquid, and its coupling in windows: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import Length, NumberDensity, Temperature, Time
from manybody.engines.solvation.quadrature import lobatto

PAIR_SECONDS, STEP_SECONDS = 2e-8, 2.5e-5  # core-seconds of a pair and step, and of a step alone, on a 2020s core with AVX-512
TWIN_TIME = 20.0  # of the runs that show the order in the time step: long enough for a gas to have many collisions
UNACCOUNTED = 0.01  # of kT, a degree of freedom: what may go astray in UNACCOUNTED_TIME
UNACCOUNTED_TIME = 100.0


class LennardJonesSolvation(SystemSpec):
    """One solute among N particles of 4 (r^-12 - r^-6) in a periodic cube; all masses 1.

    Solute and solvent interact with sigma = (1 + solute_sigma) / 2 and epsilon = sqrt(solute_epsilon): Lorentz and Berthelot.
    """

    summary: ClassVar[str] = "one Lennard-Jones particle, of any size and depth, dissolved in a Lennard-Jones fluid"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "cubic rotation")
    conserved: ClassVar[tuple[str, ...]] = ("energy", "momentum")

    name: Literal["lennard-jones-solvation"] = "lennard-jones-solvation"
    temperature: Temperature = Field(gt=0, examples=[2.0], description="temperature")
    density: NumberDensity = Field(gt=0, le=2.0, examples=[0.4], description="solvent particles per volume")
    atoms: int = Field(256, ge=32, le=100_000, description="number of solvent particles")
    cutoff: Length = Field(3.0, gt=1.5, description="pairs further apart do not interact; must fit half the box")
    solute_sigma: Length = Field(1.0, gt=0.2, le=2.0, description="diameter of the solute")
    solute_epsilon: float = Field(1.0, gt=0, le=4.0, description="depth of the solute's own potential")

    @property
    def box(self) -> float:
        """Edge of the periodic cube, in sigma."""
        return math.cbrt(self.atoms / self.density)

    @property
    def pair_sigma(self) -> float:
        """Where solute and solvent neither attract nor repel: the mean of their diameters."""
        return 0.5 * (1 + self.solute_sigma)

    @property
    def pair_epsilon(self) -> float:
        """Depth of the potential between solute and solvent."""
        return math.sqrt(self.solute_epsilon)

    @property
    def is_pure(self) -> bool:
        """Whether the solute is one more particle of the solvent."""
        return self.solute_sigma == self.solute_epsilon == 1

    @model_validator(mode="after")
    def _cutoff_fits(self) -> LennardJonesSolvation:
        if self.cutoff > self.box / 2:
            atoms = math.ceil((2 * self.cutoff) ** 3 * self.density)
            remedy = f"Lower the cutoff, or take at least {atoms} atoms at this density."
            refuse("cutoff", f"at most half the box, {self.box / 2:.4g}", f"{self.cutoff:g}", remedy)
        return self


class Window(Sampled):
    """One stretch at one coupling: what a node needs to know to compute it.

    couplings: those of all windows, at which the energy of each sample is recorded. alpha: of the soft core.
    """

    coupling: float
    couplings: tuple[float, ...]
    alpha: float
    insertions: int
    settling: float


class Melt(Sampled):
    """From a lattice to the liquid with the solute fully coupled."""

    melting: float
    melting_temperature: float
    alpha: float


class AlchemicalDynamics(MethodSpec):
    """Isokinetic dynamics of solute and solvent in windows of a coupling, through a soft core.

    A realisation melts one lattice; each window settles from there and is a chain of segments of its own. Windows lie on the
    nodes of the Gauss-Lobatto rule, which integrates dU/dl over them exactly where it is a polynomial of degree 2 n - 3 in l.
    Where the coupling is 0, particles are also inserted at random: Widom's route to the same free energy.
    """

    summary: ClassVar[str] = "free energy of coupling a solute to a liquid: windows, dU/dl, foreign energies, insertion"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("lennard-jones-solvation",)
    stages: ClassVar[Mapping[str, str]] = {
        "melt": "manybody.engines.solvation.stages:melt",
        "settle": "manybody.engines.solvation.stages:settle",
        "sample": "manybody.engines.solvation.stages:sample",
        "conserve": "manybody.engines.solvation.stages:conserve",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="conserve",
        parameter="time_step",
        quantity="energy_fluctuation",
        order=2,
        claim="the energy less heat fluctuates with the square of the time step",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "lennard-jones-solvation", "temperature": 2.0, "density": 0.4},
        {"melting": 2.0, "equilibration": 4.0},
    )

    name: Literal["alchemical-dynamics"] = "alchemical-dynamics"
    windows: int = Field(11, ge=3, le=64, description="couplings from 0 to 1, each sampled by itself")
    alpha: float = Field(0.5, gt=0, le=2, description="of the soft core: how far apart decoupled particles seem, in sigma^6")
    time_step: Time = Field(0.005, gt=0, le=0.02, description="time step; above 0.02 the repulsion is not resolved")
    melting: Time = Field(10.0, gt=0, description="simulated time at the melting temperature")
    melting_temperature: Temperature = Field(3.0, gt=0, description="at which the starting lattice is melted")
    equilibration: Time = Field(20.0, gt=0, description="simulated time at the temperature after that, not measured")
    settling: Time = Field(10.0, gt=0, description="simulated time in each window before it is sampled")
    duration: Time = Field(200.0, gt=0, description="simulated time that is measured in each window, each repeat")
    segment: Time = Field(100.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: Time = Field(0.2, gt=0, description="simulated time between samples of slope and energies")
    frame_every: Time = Field(
        5.0, gt=0, description="simulated time between stored configurations; velocities are drawn anew there"
    )
    insertions: int = Field(200, ge=1, le=100_000, description="random insertions a sample where the coupling is 0")
    blocks: int = Field(20, ge=16, le=200, description="parts of each window that are left out in turn for errors")

    @model_validator(mode="after")
    def _times_nest(self) -> AlchemicalDynamics:
        refuse_unless_times_nest(self)
        if self.duration < 2 * self.blocks * self.sample_every:
            least = 2 * self.blocks * self.sample_every
            refuse("duration", f"two samples in each of {self.blocks} blocks", f"{self.duration:g}", f"Take {least:g} or more.")
        if max(self.melting_temperature, 1.0) * self.time_step**2 > 0.01:
            least = math.floor(0.01 / self.time_step**2)
            refuse("melting_temperature", f"at most {least} with this time_step", f"{self.melting_temperature:g}", "Lower it.")
        return self

    @property
    def couplings(self) -> tuple[float, ...]:
        """The coupling of each window, from 0 to 1."""
        return tuple(lobatto(self.windows)[0].tolist())

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """The melt, then for each window its settling and its segments; the segments are measured, window after window."""
        assert isinstance(system, LennardJonesSolvation)
        shared: dict[str, Any] = {
            "time_step": self.time_step, "sample_every": self.sample_every, "frame_every": self.frame_every, "alpha": self.alpha,
        }  # fmt: skip
        hot = {"melting": self.melting, "melting_temperature": self.melting_temperature}
        melted = self._task("melt", system, Melt(time=self.equilibration, **shared, **hot), seed, repeat)
        tasks, measured = [melted], list[Task]()
        for coupling in self.couplings:
            window = self.window(coupling, shared)
            settled = self._task("settle", system, window, seed, repeat, {"state": melted.digest})
            count = segments(self.duration, self.segment)

            def after(state: str, window: Window = window) -> Task:
                return self._task("sample", system, window, seed, repeat, {"state": state})

            made, sampled = chain(settled, count, after)
            tasks += made
            measured += sampled
        return tuple(tasks), tuple(measured)

    def window(self, coupling: float, shared: Mapping[str, Any]) -> Window:
        """A segment of the window at a coupling."""
        return Window(
            time=self.segment, coupling=coupling, couplings=self.couplings, settling=self.settling,
            insertions=self.insertions if coupling == 0 else 0, **shared,
        )  # fmt: skip

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The energy less heat, the momentum, and the kinetic energy, which is held."""
        assert isinstance(system, LennardJonesSolvation)
        steps = round(self.segment / self.time_step)
        energy = Conserved(
            series="balance",
            claim="the energy less heat does not drift, in kT per degree of freedom per tau",
            tolerance=UNACCOUNTED / UNACCOUNTED_TIME,
            tolerance_from=f"{UNACCOUNTED:g} kT a degree of freedom may go astray in {UNACCOUNTED_TIME:g} tau",
        )
        momentum = Conserved(
            series="momentum",
            claim="the total momentum stays zero, in thermal momenta of one particle",
            tolerance=10 * math.sqrt(steps) * 2.3e-16 * math.sqrt(system.atoms) * max(1.0, 1 / math.sqrt(system.temperature)),
            tolerance_from=f"ten times the round-off of {steps} random steps of {system.atoms} additions in double precision",
            drift=False,
        )
        kinetic = Conserved(
            series="kinetic_temperature",
            claim="the kinetic temperature stays what is asked for, over it",
            tolerance=10 * steps * 2.3e-16,
            tolerance_from=f"round-off of {steps} steps, two rescalings each, all to one side",
            drift=False,
        )
        return (energy, momentum, kinetic)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A short run of the last window from where it ended, its time step multiplied by `factor`."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, LennardJonesSolvation)
        step = self.time_step * factor
        changes = {"time_step": step, "time": TWIN_TIME, "sample_every": 2 * step, "frame_every": TWIN_TIME}
        window = Window.model_validate(last.parameters | changes)
        return self._task("conserve", system, window, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: LennardJonesSolvation, leg: Window | Melt, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        time = leg.settling if isinstance(leg, Window) and stage == "settle" else leg.time
        steps = (time + (leg.melting if isinstance(leg, Melt) else 0.0)) / leg.time_step
        pairs = 0.5 * system.atoms * 4 / 3 * math.pi * system.cutoff**3 * system.density
        return self.task(stage, system, leg, seed, repeat, steps * (pairs * PAIR_SECONDS + 1e-5), inputs)
