"""Vicsek's flock and its dynamics: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.dynamics import Sampled, chain, refuse_unless_times_nest, segments
from manybody.core.errors import TaskError
from manybody.core.protocols import Conserved, MethodSpec, SystemSpec
from manybody.core.spec import refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task

STEP_COST = 1.5e-7  # core-seconds a particle and step at density 4, measured on a 2020s core
PAIR_COST = 1.5e-9  # core-seconds a pair where cells do not help


class VicsekFlock(SystemSpec):
    """Particles in a periodic square that move at one speed and take the mean direction of their neighbours, with noise.

    The time step is the unit of time. Lengths are in any unit; Vicsek's is the radius. Noise turns each heading by an angle
    uniform from -noise/2 to noise/2. With radius 0 particles do not see each other; with a radius of 2^(-1/2) of the edge or
    more each sees all.
    """

    summary: ClassVar[str] = "self-propelled particles that align with neighbours within a radius, with noise"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "right angle", "reflection")

    name: Literal["vicsek-flock"] = "vicsek-flock"
    particles: int = Field(400, ge=2, le=10_000_000, description="number of particles")
    density: float = Field(4.0, gt=0, description="particles an area")
    radius: float = Field(1.0, ge=0, description="how far a particle sees; 0 for not at all")
    speed: float = Field(0.03, ge=0, le=1e6, description="distance moved in a step")
    noise: float = Field(1.0, ge=0, le=2 * math.pi, description="width of the noise in a heading, radians; 2 pi is full noise")

    @property
    def edge(self) -> float:
        """Edge of the periodic square."""
        return math.sqrt(self.particles / self.density)


class FlockStretch(Sampled):
    """One stretch of steps: what a node needs to know to compute it. Times in steps."""


class VicsekDynamics(MethodSpec):
    """All headings at once, then all positions by the headings before: Vicsek's own order.

    A realisation is a chain of tasks: equilibrate, then segments, each starting from the state the one before ended in.
    """

    summary: ClassVar[str] = "synchronous steps: take the neighbours' mean direction, turn at random, move"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("vicsek-flock",)
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": "manybody.engines.vicsek.stages:equilibrate",
        "produce": "manybody.engines.vicsek.stages:produce",
    }
    extent: ClassVar[str] = "duration"
    trial: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = (
        {"name": "vicsek-flock", "particles": 4000},
        {"equilibration": 1000, "segment": 1000, "sample_every": 10, "frame_every": 100},
    )
    time_step: ClassVar[float] = 1.0

    name: Literal["vicsek-dynamics"] = "vicsek-dynamics"
    equilibration: float = Field(1000, ge=1, description="steps from a random start, not measured")
    duration: float = Field(10_000, ge=1, description="steps that are measured, each repeat")
    segment: float = Field(1000, ge=1, description="steps between checkpoints: one task")
    sample_every: float = Field(10, ge=1, description="steps between samples, over which displacements are taken")
    frame_every: float = Field(100, ge=1, description="steps between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> VicsekDynamics:
        refuse_unless_times_nest(self)
        refuse_unless_multiple(self, "equilibration", "sample_every")
        return self

    def stretch(self, time: float) -> FlockStretch:
        """A stretch of `time` steps with this method's settings."""
        return FlockStretch(time_step=self.time_step, time=time, sample_every=self.sample_every, frame_every=self.frame_every)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Equilibration, then as many segments as the duration takes."""
        assert isinstance(system, VicsekFlock)
        start = self._task("equilibrate", system, self.stretch(self.equilibration), seed, repeat)
        stretch, count = self.stretch(self.segment), segments(self.duration, self.segment)
        return chain(start, count, lambda state: self._task("produce", system, stretch, seed, repeat, {"state": state}))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Nothing: aligning creates momentum."""
        return ()

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """None; the step is part of the model."""
        raise TaskError("Vicsek's model is made of steps: there is no order to find. Leave out the check `convergence`.")

    def _task(
        self, stage: str, system: VicsekFlock, stretch: FlockStretch, seed: int, repeat: int,
        inputs: dict[str, str] | None = None,
    ) -> Task:  # fmt: skip
        each = STEP_COST if system.edge >= 3 * system.radius else STEP_COST + PAIR_COST * system.particles
        return self.task(stage, system, stretch, seed, repeat, stretch.stride * stretch.samples * system.particles * each, inputs)
