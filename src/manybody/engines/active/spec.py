"""Active Brownian particles and Brownian dynamics: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.engines.active.known_answers import WELL, closest_approach, effective_diameter, stiffness
from manybody.engines.active.sites import Start, start_spacing

NEIGHBOURS = 6  # of a disk in the densest packing; the stiffest mode of that lattice has 6 times the stiffness of a pair
HARDEST_KNOCK = 8.0  # kT; one collision in exp(8), about 3000, is harder
MOST_TURN = 0.1  # D_r dt; Heun's error in the displacement is (D_r dt)^2 / 12, below a thousandth
TWIN_STEPS = 32  # time steps of a convergence twin: several relaxations of a contact, not yet chaos


class ActiveBrownianParticles(SystemSpec):
    """Disks in a periodic square that swim at a constant speed in a direction which diffuses, and repel each other.

    Lengths in disk diameters, energies in kT; times follow from the diffusivity. Pairs closer than 2^(1/6) repel by
    4 epsilon (r^-12 - r^-6) + epsilon; with `repulsion` 0 the particles do not see each other. Speed 0 is passive
    Brownian motion. The mobility is D / kT (Einstein).
    """

    summary: ClassVar[str] = "self-propelled Brownian disks in a periodic square: free, repulsive, or passive"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "right angle", "reflection")
    conserved: ClassVar[tuple[str, ...]] = ("centre",)

    name: Literal["active-brownian-particles"] = "active-brownian-particles"
    particles: int = Field(1000, ge=2, le=1_000_000, description="number of disks")
    area_fraction: float = Field(0.5, gt=0, le=0.85, description="share of the square that disks of diameter 1 cover")
    speed: float = Field(0.0, ge=0, description="self-propulsion speed v")
    diffusivity: float = Field(1.0, gt=0, description="translational diffusivity D")
    rotational_diffusivity: float = Field(3.0, gt=0, description="rotational diffusivity D_r")
    repulsion: float = Field(0.0, ge=0, le=1e4, description="epsilon of the repulsion, kT; 0 for none")

    @property
    def edge(self) -> float:
        """Edge of the periodic square."""
        return math.sqrt(self.particles / self.density)

    @property
    def density(self) -> float:
        """Disks per area."""
        return 4 * self.area_fraction / math.pi

    @property
    def effective_diameter(self) -> float:
        """The diameter of the hard disks that the repulsion stands for; 0 without one."""
        return effective_diameter(self.repulsion) if self.repulsion else 0.0

    @property
    def peclet(self) -> float:
        """v d / D with the effective diameter d; with diameter 1 where there is no repulsion."""
        return self.speed * (self.effective_diameter or 1.0) / self.diffusivity

    @model_validator(mode="after")
    def _repulsion_fits(self) -> ActiveBrownianParticles:
        if self.repulsion and self.edge < 2 * WELL:
            least = math.ceil((2 * WELL) ** 2 * self.density)
            refuse("particles", f"at least {least} at this area fraction", f"{self.particles}", "Take more particles.")
        return self


class Stretch(Sampled):
    """One stretch of dynamics: what a node needs to know to compute it."""

    start: Start


class BrownianDynamics(MethodSpec):
    """Overdamped Langevin equations by Heun's method, a weak scheme of order 2.

    A realisation is a chain of tasks: equilibrate, then segments, each starting from the state the one before ended in.
    """

    summary: ClassVar[str] = "overdamped Brownian motion with self-propulsion, by Heun's method (weak order 2)"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("active-brownian-particles",)
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.active.stages:equilibrate",
        "produce": "manybody.engines.active.stages:produce",
        "converge": "manybody.engines.active.stages:converge",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="converge",
        parameter="time_step",
        quantity="path_difference",
        order=1,
        claim="two paths on the same noise, one with half the time step, part in proportion to the time step (strong order)",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "active-brownian-particles", "repulsion": 1.0, "speed": 10.0},
        {"time_step": 1e-4, "equilibration": 1.0, "sample_every": 0.01, "frame_every": 0.1, "segment": 1.0},
    )

    name: Literal["brownian-dynamics"] = "brownian-dynamics"
    start: Start = Field("lattice", description="`lattice`: spread evenly; `strip`: packed into a dense strip")
    time_step: float = Field(1e-3, gt=0, description="time step; limited by the repulsion and by D_r")
    equilibration: float = Field(1.0, gt=0, description="simulated time from the start, not measured")
    duration: float = Field(10.0, gt=0, description="simulated time that is measured, each repeat")
    segment: float = Field(1.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: float = Field(0.1, gt=0, description="simulated time between samples, over which displacements are taken")
    frame_every: float = Field(0.5, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> BrownianDynamics:
        refuse_unless_times_nest(self)
        refuse_unless_multiple(self, "equilibration", "sample_every")
        return self

    def suits(self, system: SystemSpec) -> None:
        """Refuse a time step in which the repulsion overshoots or a heading turns too far."""
        assert isinstance(system, ActiveBrownianParticles)
        limit, reason = longest_time_step(system, self.start)
        if self.time_step > limit:
            refuse("method", f"a time_step of at most {limit:.3g}, {reason}", f"{self.time_step:g}", "Lower `time_step`.")

    def stretch(self, time: float) -> Stretch:
        """A stretch of `time` with this method's settings."""
        return Stretch.of(self, time=time)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, ActiveBrownianParticles)
        start = self._task("equilibrate", system, self.stretch(self.equilibration), seed, repeat)
        stretch, count = self.stretch(self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, stretch, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """The centre of all disks, less what propulsion and noise moved it: forces of pairs cancel."""
        assert isinstance(system, ActiveBrownianParticles)
        steps = self.stretch(self.segment).stride * self.stretch(self.segment).samples
        total = self.equilibration + self.duration
        far = system.edge + system.speed * total + 10 * math.sqrt(2 * system.diffusivity * total)
        centre = Conserved(
            series="centre",
            claim="the mean position, less the mean displacement by propulsion and noise, stays what it was, in diameters",
            tolerance=2 * steps * far * 2.0**-53,
            tolerance_from=f"{steps} steps, each rounding a position and the sum of displacements once, all to one side",
            drift=False,
        )
        return (centre,)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """Two paths on the same noise from where the realisation ended: time step times `factor`, and half of that."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, ActiveBrownianParticles)
        time, step = TWIN_STEPS * self.time_step, self.time_step * factor
        stretch = Stretch(start=self.start, time_step=step, time=time, sample_every=time, frame_every=time)
        return self._task("converge", system, stretch, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: ActiveBrownianParticles, stretch: Stretch, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        steps = stretch.stride * stretch.samples
        per_particle = 2.5e-7 if system.repulsion else 8e-8  # core-seconds a particle and step, measured on a 2020s core
        return self.task(stage, system, stretch, seed, repeat, steps * system.particles * per_particle, inputs)


def longest_time_step(system: ActiveBrownianParticles, start: Start) -> tuple[float, str]:
    """The longest time step in which no drift overshoots, and what limits it.

    With the stiffness k = u'' of a contact, positions relax at the rate 2 D k in a pair and at most 6 D k in the densest
    packing. Heun's method is stable up to dt rate = 2; half of that is allowed. A contact is as hard as a rare thermal
    knock makes it, as two rows of swimmers that push against each other do, or as disks are packed at the start.
    """
    limits = {MOST_TURN / system.rotational_diffusivity: f"or a heading turns by more than D_r dt = {MOST_TURN:g}"}
    if system.repulsion:
        knocked = closest_approach(system.repulsion, HARDEST_KNOCK, math.inf)
        limits[1 / (2 * system.diffusivity * stiffness(knocked, system.repulsion))] = "or collisions overshoot"
        push = 2 * system.speed / system.diffusivity
        spacing = start_spacing(system.particles, system.edge, start)
        pushed = min(closest_approach(system.repulsion, math.inf, push), spacing)
        rate = NEIGHBOURS * system.diffusivity * stiffness(pushed, system.repulsion)
        limits[1 / rate] = "or disks that are pressed together overshoot"
    limit = min(limits)
    return limit, limits[limit]
