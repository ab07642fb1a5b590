"""Replica exchange of molecules as a plan: rounds times replicas, with a task between rounds that decides. Torch-free.

    equilibrate (one a rung) -> dynamics (one a rung) -> exchange -> dynamics (one a rung) -> exchange -> ..

A rung's next task reads the exchange, its own last state and its partner's, and goes on from the one that the exchange says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from manybody.core.protocols import Conserved, Convergence, MethodSpec, SystemSpec
from manybody.core.spec import Spec, refuse, refuse_unless_multiple
from manybody.core.study import Realisation
from manybody.core.task import Task
from manybody.core.units import Temperature, Time
from manybody.engines.molecules.exchange import ladder, partner
from manybody.engines.molecules.spec import ForceFieldDynamics, MolecularSystem, MoleculeLeg

HERE = "manybody.engines.molecules"


class ReplicaLeg(Spec):
    """A round of a rung: its dynamics, and the ladder (kT of each rung) that it stands on."""

    leg: MoleculeLeg
    rung: int
    ladder: tuple[float, ...]


class Exchange(Spec):
    """Which pairs of a ladder try to swap: those of a `turn`."""

    turn: int
    ladder: tuple[float, ...]


class ReplicaExchange(MethodSpec):
    """Replicas of a system at several temperatures that swap configurations: rare events happen where it is hot.

    What is measured is the lowest rung, which runs at the temperature of the system. One replica is a plain long run.
    """

    summary: ClassVar[str] = "replica exchange: molecular dynamics at several temperatures whose configurations are swapped"
    version: ClassVar[str] = "2"
    systems: ClassVar[tuple[str, ...]] = ("molecule", "water-box", "molecular-box")
    stages: ClassVar[Mapping[str, str]] = {
        "equilibrate": f"{HERE}.stages:equilibrate",
        "replicate": f"{HERE}.replica_stages:replicate",
        "exchange": f"{HERE}.replica_stages:exchange",
        "conserve": f"{HERE}.stages:conserve",
    }
    extent: ClassVar[str] = "duration"
    convergence: ClassVar[Convergence | None] = ForceFieldDynamics.convergence

    name: Literal["replica-exchange"] = "replica-exchange"
    replicas: int = Field(
        4, ge=1, le=256, description="how many temperatures, in even ratios from the system's; 1 is a plain run"
    )
    highest: Temperature = Field(gt=0, examples=[5.0], description="temperature of the hottest replica")
    round: Time = Field(2.0, gt=0, description="simulated time between swaps: one task a replica")
    thermostat: Literal["bussi", "langevin"] = Field("langevin", description="`langevin`, or `bussi`, which leaves motion alone")
    thermostat_time: Time = Field(0.5, gt=0, description="relaxation time of the thermostat")
    time_step: Time = Field(0.002, gt=0, le=0.004, description="time step")
    equilibration: Time = Field(20.0, gt=0, description="simulated time of each replica before the first round")
    duration: Time = Field(100.0, gt=0, description="simulated time of each replica that is measured")
    sample_every: Time = Field(0.02, gt=0, description="simulated time between samples of energy and pressure")
    frame_every: Time = Field(0.5, gt=0, description="simulated time between stored configurations")

    @model_validator(mode="after")
    def _times_nest(self) -> ReplicaExchange:
        for field, inner in (("sample_every", "time_step"), ("frame_every", "sample_every"), ("round", "frame_every")):
            refuse_unless_multiple(self, field, inner)
        return self

    def _dynamics(self) -> ForceFieldDynamics:
        """What each replica does between swaps."""
        shared = ("thermostat", "thermostat_time", "time_step", "equilibration", "sample_every", "frame_every", "duration")
        return ForceFieldDynamics.model_validate({name: getattr(self, name) for name in shared} | {"segment": self.round})

    def suits(self, system: SystemSpec) -> None:
        """The ladder goes up from the system's temperature."""
        assert isinstance(system, MolecularSystem)
        if self.replicas > 1 and self.highest <= system.temperature:
            expected = f"more than the system's temperature, {system.temperature:g}"
            refuse("highest", expected, f"{self.highest:g}", "Take about twice the system's.")
        self._dynamics().suits(system)

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """What the dynamics between swaps conserves."""
        return self._dynamics().conserves(system)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Rounds of all rungs, the hottest first, with an exchange between them; the lowest rung carries what is measured."""
        assert isinstance(system, MolecularSystem)
        dynamics, rungs = self._dynamics(), ladder(system.temperature, self.highest, self.replicas)
        hosts = [system.model_copy(update={"temperature": kT}) for kT in rungs]
        begin = dynamics.leg(thermostat="langevin", time=self.equilibration)
        last = [self._task("equilibrate", host, begin, {}, seed, repeat) for host in hosts]
        tasks, measured, leg = last[::-1], [], dynamics.leg(time=self.round)
        for count in range(math.ceil(self.duration / self.round - 1e-9)):
            swap, turn = None, count if self.replicas > 2 else 0  # two have one pair, whose turn it always is
            if count and self.replicas > 1:
                inputs = {f"rung {rung}": task.digest for rung, task in enumerate(last)}
                swap = self._task("exchange", system, Exchange(turn=turn, ladder=rungs), inputs, seed, repeat)
                tasks.append(swap)
            last = [
                self._task(
                    "replicate",
                    hosts[rung],
                    ReplicaLeg(leg=leg, rung=rung, ladder=rungs),
                    _reads(rung, last, turn, swap),
                    seed,
                    repeat,
                )
                for rung in range(self.replicas)
            ]
            tasks += last[::-1]
            measured.append(last[0])
        return tuple(tasks), tuple(measured)

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """A run without a thermostat from where the lowest rung ended, its time step multiplied by `factor`."""
        last, system = realisation.measured[-1], realisation.point.system
        assert isinstance(system, MolecularSystem)
        step = self.time_step * factor
        leg = self._dynamics().leg(
            thermostat="none", time_step=step, time=500 * self.time_step, sample_every=step, frame_every=500 * step
        )
        return self._task("conserve", system, leg, {"state": last.digest}, last.seed, realisation.repeat)

    def _task(
        self, stage: str, system: MolecularSystem, work: MoleculeLeg | ReplicaLeg | Exchange, inputs: dict[str, str],
        seed: int, repeat: int,
    ) -> Task:  # fmt: skip
        leg = work.leg if isinstance(work, ReplicaLeg) else work
        return self.task(
            stage, system, work, seed, repeat, 0.01 if isinstance(leg, Exchange) else leg.steps * system.step_seconds, inputs
        )


def _reads(rung: int, last: list[Task], turn: int, swap: Task | None) -> dict[str, str]:
    """What the next round of a rung begins from."""
    if swap is None:
        return {"state": last[rung].digest}
    other = partner(rung, len(last), turn)
    found = {"exchange": swap.digest, "state": last[rung].digest}
    return found if other == rung else found | {"partner": last[other].digest}
