"""Active Ornstein-Uhlenbeck particles and their dynamics: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.errors import TaskError
from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.engines.active.known_answers import WELL, closest_approach, stiffness
from manybody.engines.active.sites import Start, start_spacing
from manybody.engines.active.spec import HARDEST_KNOCK, NEIGHBOURS

STRONGEST_PUSH = 4.0  # standard deviations of a component of the propulsion; one time in 16,000 it is stronger
TWIN_STEPS = 32  # time steps of a convergence twin


class ActiveOrnsteinUhlenbeckParticles(SystemSpec):
    """Disks in a periodic square that an Ornstein-Uhlenbeck process propels and that repel each other, or each in a trap.

    dx = (p + F) dt with the mobility 1 and <p_a(t) p_b(0)> = delta_ab T / tau exp(-t / tau): lengths in disk diameters, T an
    energy, T also the diffusivity of a free particle at long times. Pairs closer than 2^(1/6) repel by
    4 epsilon (r^-12 - r^-6) + epsilon. The trap, k r^2 / 2 + q r^4 / 4 about the origin, is for particles that do not see each
    other.
    """

    summary: ClassVar[str] = "disks propelled by coloured noise: free, repulsive, or each in a trap"
    symmetries: ClassVar[tuple[str, ...]] = ("permutation", "right angle", "reflection")
    conserved: ClassVar[tuple[str, ...]] = ("centre",)

    name: Literal["active-ornstein-uhlenbeck-particles"] = "active-ornstein-uhlenbeck-particles"
    particles: int = Field(1000, ge=2, le=1_000_000, description="number of disks")
    area_fraction: float = Field(0.5, gt=0, le=0.85, description="share of the square that disks of diameter 1 cover")
    active_temperature: float = Field(1.0, gt=0, description="T: strength of the propulsion, <p^2> tau for each component")
    persistence_time: float = Field(1.0, gt=0, description="tau: correlation time of the propulsion")
    repulsion: float = Field(0.0, ge=0, le=1e4, description="epsilon of the repulsion; 0 for none")
    trap: float = Field(0.0, ge=0, description="stiffness k of a harmonic trap; 0 for none")
    anharmonicity: float = Field(0.0, ge=0, description="q of the trap's quartic part, q r^4 / 4; 0 for none")

    @property
    def edge(self) -> float:
        """Edge of the periodic square."""
        return math.sqrt(self.particles * math.pi / 4 / self.area_fraction)

    @property
    def held(self) -> bool:
        """Whether there is a trap."""
        return self.trap > 0 or self.anharmonicity > 0

    @property
    def linear(self) -> bool:
        """Whether closed forms hold: free particles, or a harmonic trap."""
        return not self.repulsion and not self.anharmonicity

    @model_validator(mode="after")
    def _forces_fit(self) -> ActiveOrnsteinUhlenbeckParticles:
        if self.repulsion and self.held:
            refuse("trap", "no trap where particles repel each other", f"trap {self.trap:g}", "Set `repulsion` or the trap to 0.")
        if self.repulsion and self.edge < 2 * WELL:
            least = math.ceil((2 * WELL) ** 2 * 4 * self.area_fraction / math.pi)
            refuse("particles", f"at least {least} at this area fraction", f"{self.particles}", "Take more particles.")
        return self


class ColouredStretch(Sampled):
    """One stretch of dynamics: what a node needs to know to compute it."""

    start: Start


class ColouredNoiseDynamics(MethodSpec):
    """Overdamped motion under coloured noise: the noise exactly, forces as in Heun's method, order 2 in paths.

    A realisation is a chain of tasks: equilibrate, then segments, each starting from the state the one before ended in.
    """

    summary: ClassVar[str] = "overdamped motion propelled by coloured noise: exact noise, forces of order 2"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("active-ornstein-uhlenbeck-particles",)
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.active.coloured.stages:equilibrate",
        "produce": "manybody.engines.active.coloured.stages:produce",
        "converge": "manybody.engines.active.coloured.stages:converge",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = Convergence(
        stage="converge",
        parameter="time_step",
        quantity="path_difference",
        order=2,
        claim="two paths on the same noise, one with half the time step, part as the square of the time step (strong order)",
    )
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "active-ornstein-uhlenbeck-particles", "repulsion": 1.0, "active_temperature": 10.0},
        {"time_step": 1e-4, "equilibration": 1.0, "sample_every": 0.01, "frame_every": 0.1, "segment": 1.0},
    )

    name: Literal["coloured-noise-dynamics"] = "coloured-noise-dynamics"
    start: Start = Field("lattice", description="`lattice`: spread evenly; `strip`: packed into a dense strip; not in a trap")
    time_step: float = Field(1e-3, gt=0, description="time step; limited by the repulsion or the trap")
    equilibration: float = Field(1.0, gt=0, description="simulated time from the start, not measured")
    duration: float = Field(10.0, gt=0, description="simulated time that is measured, each repeat")
    segment: float = Field(1.0, gt=0, description="simulated time between checkpoints: one task")
    sample_every: float = Field(0.1, gt=0, description="simulated time between samples, over which displacements are taken")
    frame_every: float = Field(0.5, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> ColouredNoiseDynamics:
        refuse_unless_times_nest(self)
        refuse_unless_multiple(self, "equilibration", "sample_every")
        return self

    def suits(self, system: SystemSpec) -> None:
        """Refuse a time step in which a force overshoots."""
        assert isinstance(system, ActiveOrnsteinUhlenbeckParticles)
        limit = longest_time_step(system, self.start)
        if self.time_step > limit:
            came, why = f"{self.time_step:g}", "or the trap overshoots" if system.held else "or disks in contact overshoot"
            refuse("method", f"a time_step of at most {limit:.3g}, {why}", came, "Lower `time_step`.")

    def stretch(self, time: float) -> ColouredStretch:
        """A stretch of `time` with this method's settings."""
        return ColouredStretch.of(self, time=time)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, ActiveOrnsteinUhlenbeckParticles)
        start = self._task("equilibrate", system, self.stretch(self.equilibration), seed, repeat)
        stretch, count = self.stretch(self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, stretch, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Without a trap, the centre of all disks less what propulsion moved it: forces of pairs cancel."""
        assert isinstance(system, ActiveOrnsteinUhlenbeckParticles)
        if system.held:
            return ()
        stretch = self.stretch(self.segment)
        steps, total = stretch.stride * stretch.samples, self.equilibration + self.duration
        far = system.edge + 10 * math.sqrt(2 * system.active_temperature * total)
        centre = Conserved(
            series="centre",
            claim="the mean position, less the mean displacement by propulsion, stays what it was, in diameters",
            tolerance=2 * steps * far * 2.0**-53,
            tolerance_from=f"{steps} steps, each rounding a position and the sum of displacements once, all to one side",
            drift=False,
        )
        return (centre,)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """Two paths on the same noise from where the realisation ended: time step times `factor`, and half of that."""
        last, system = realisation.tasks[-1], realisation.point.system
        assert isinstance(system, ActiveOrnsteinUhlenbeckParticles)
        if not system.held and not system.repulsion:
            raise TaskError("Free particles move exactly: there is no order to find. Leave out the check `convergence`.")
        time, step = TWIN_STEPS * self.time_step, self.time_step * factor
        stretch = ColouredStretch(start=self.start, time_step=step, time=time, sample_every=time, frame_every=time)
        return self._task("converge", system, stretch, last.seed, realisation.repeat, {"state": last.digest})

    def _task(
        self, stage: str, system: ActiveOrnsteinUhlenbeckParticles, stretch: ColouredStretch, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        steps = stretch.stride * stretch.samples
        per_particle = 2.5e-7 if system.repulsion else 1e-7  # core-seconds a particle and step, measured on a 2020s core
        return self.task(stage, system, stretch, seed, repeat, steps * system.particles * per_particle, inputs)


def longest_time_step(system: ActiveOrnsteinUhlenbeckParticles, start: Start) -> float:
    """The longest time step in which no force overshoots: the rate of the stiffest mode times it is at most 1; inf for free ones.

    The scheme is stable up to 2. How far a particle climbs is limited by the propulsion, `STRONGEST_PUSH` standard
    deviations of it (twice in a pair), and, where that is short-lived, by the energy that temperature T gives it.
    """
    push = STRONGEST_PUSH * math.sqrt(2 * system.active_temperature / system.persistence_time)
    energy = HARDEST_KNOCK * system.active_temperature
    rate = system.trap
    if system.anharmonicity:
        furthest2 = min((push / system.anharmonicity) ** (2 / 3), math.sqrt(4 * energy / system.anharmonicity))
        rate += 3 * system.anharmonicity * furthest2
    if system.repulsion:
        spacing = start_spacing(system.particles, system.edge, start)
        closest = min(closest_approach(system.repulsion, energy, 2 * push), spacing)
        rate = NEIGHBOURS * stiffness(closest, system.repulsion)
    return 1 / rate if rate else math.inf
