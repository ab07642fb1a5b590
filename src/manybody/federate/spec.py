"""Federated learning as a chain of tasks: typed, torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from manybody.core.errors import InputError, Problem
from manybody.core.learning import LearningProblem, Party, Training
from manybody.core.protocols import Conserved, MethodSpec, SystemSpec
from manybody.core.spec import Spec, refuse
from manybody.core.study import Realisation, member
from manybody.core.task import Needs, Task
from manybody.federate.rule import AggregationRule

Rule = Annotated[SerializeAsAny[AggregationRule], member("rules")]

STEP_SECONDS = 3e-8  # a gradient step and sample, about, on one core
TASK_SECONDS = 0.004  # what a task takes however small: results are written to disk


class Privacy(Spec):
    """Differential privacy of every update: clipped, then noised, on the party's own node.

    `node` hides a whole party: its update is clipped. `record` hides one sample of a party: the gradient of each is
    clipped; how many there are counts as known.
    """

    unit: Literal["node", "record"] = Field("node", description="what is hidden: all data of a `node`, or one `record` of it")
    clip: float = Field(1.0, gt=0, description="norm that an update, or a record's gradient, is clipped to, C")
    noise: float = Field(1.1, gt=0, description="standard deviation of the noise over the clip norm, z")
    delta: float = Field(1e-5, gt=0, lt=1, description="chance that the bound on what is told does not hold")


class Exchange(Spec):
    """Updates travel compressed, every value within `bound` of what was sent."""

    bound: float = Field(1e-6, ge=0, description="largest error of any value; 0 is lossless")


class Fit(Spec):
    """Parameters of a `fit` task: who trains, how, and what becomes of the update before it leaves the node."""

    party: Party
    round: int = Field(ge=1)
    training: Training
    privacy: Privacy | None
    exchange: Exchange | None


class Aggregation(Spec):
    """Parameters of an `aggregate` task."""

    round: int = Field(ge=1)
    rule: Rule


class FederatedLearning(MethodSpec):
    """Rounds of training: every party trains on its own data from the parameters of the round before, a rule combines.

    `fit` (party, round) reads what `aggregate` gave in the round before and the party's data; `aggregate` reads the
    updates of all. Data that a party holds are no task's result: only a node that has them can run its `fit`.
    """

    summary: ClassVar[str] = "rounds of local training, updates combined by a rule; clipped, noised or compressed on request"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ("federated-liquid",)
    stages: ClassVar[Mapping[str, str]] = {
        "prepare": "manybody.federate.stages:prepare",
        "start": "manybody.federate.stages:start",
        "fit": "manybody.federate.stages:fit",
        "aggregate": "manybody.federate.stages:aggregate",
        "evaluate": "manybody.federate.stages:evaluate",
        "pool": "manybody.federate.stages:pool",
    }
    extent: ClassVar[str] = "rounds"

    name: Literal["federated-learning"] = "federated-learning"
    rule: Rule = Field(default={"name": "weighted-mean"}, validate_default=True, description="how updates are combined")
    rounds: int = Field(40, ge=1, le=100_000, description="rounds of training")
    local_steps: int = Field(1, ge=1, le=100_000, description="gradient steps of a party in a round, on all its data")
    learning_rate: float = Field(0.2, gt=0, description="size of a gradient step")
    privacy: Privacy | None = Field(None, description="clip and noise updates, and account for it")
    exchange: Exchange | None = Field(None, description="compress updates, with a bound on the error")

    @model_validator(mode="after")
    def _facts_may_leave(self) -> FederatedLearning:
        if self.privacy is not None and self.rule.weighs_by in ("samples", "inverse-variance"):
            came = f"{self.rule.name} by {self.rule.weighs_by}"
            remedy = (
                "Give the rule `weighting: equal`, or take one without weights: exact facts of the data would leave the node."
            )
            refuse("rule", "a rule that needs no fact of the data, because of `privacy`", came, remedy)
        if self.privacy is not None and self.privacy.unit == "record" and self.local_steps > 1:
            remedy = "Take one step a round, or hide whole nodes (`unit: node`)."
            refuse("local_steps", "1, because `privacy` clips each record's gradient", f"{self.local_steps}", remedy)
        return self

    @property
    def training(self) -> Training:
        """How a party trains in a round."""
        clip = self.privacy.clip if self.privacy and self.privacy.unit == "record" else None
        return Training(steps=self.local_steps, learning_rate=self.learning_rate, pull=self.rule.pull, clip=clip)

    def suits(self, system: SystemSpec) -> None:
        """Refuse too few parties for the rule, and a weighting by capacities that are not given."""
        parties = _problem(system).parties
        if len(parties) < self.rule.fewest:
            expected = f"at least {self.rule.fewest} parties for {self.rule}"
            refuse("rule", expected, f"{len(parties)}", "Add parties, or let the rule bear fewer bad ones.")
        unknown = [party.name for party in parties if party.capacity is None]
        if self.rule.weighs_by == "capacity" and unknown:
            remedy = "Give each `capacity:` as `manybody nodes` shows it, or weigh by samples."
            refuse("rule", "the capacity of every party", f"none for {', '.join(unknown)}", remedy)

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Data, start, then round after round; all rounds are examined at the end."""
        planner = _Planner(self, _problem(system), seed, repeat)
        for number in range(1, self.rounds + 1):
            planner.round(number)
        planner.evaluate()
        return tuple(planner.tasks), (planner.tasks[-1],)

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Nothing."""
        return ()

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """None: there is no parameter in which training converges with a known order."""
        remedy = "Leave the check `convergence` out; `pooled` compares the rate with theory."
        raise InputError(Problem("convergence", "a method with an order of convergence", f"`{self.name}`", remedy))

    def demands(self) -> tuple[str, ...]:
        """What was spent of privacy, and what compression did, have to be stated where they are asked for."""
        return (*(("privacy",) if self.privacy else ()), *(("exchange",) if self.exchange else ()))

    def repeatable(self, stage: str) -> bool:
        """Not `fit` with privacy: its noise needs a secret of the node."""
        return stage != "fit" or self.privacy is None

    def pooled(self, realisation: Realisation) -> Task:
        """The task that finds what training on all data in one place would end with; `InputError` where it must not."""
        problem = _problem(realisation.point.system)
        holders = [party.name for party in problem.parties if party.held]
        if holders:
            came = f"data that only the nodes of {', '.join(holders)} hold"
            remedy = "Leave the check out: it brings all data together."
            raise InputError(Problem("check `pooled`", "data that tasks of the study make", came, remedy))
        fits = [task for task in realisation.tasks if task.stage == "fit" and task.parameters["round"] == 1]
        inputs = {f"data-{task.parameters['party']['name']}": task.inputs["data"] for task in fits}
        start = next(task for task in realisation.tasks if task.stage == "start")
        return self._task("pool", problem, {}, start.seed, realisation.repeat, TASK_SECONDS, {"start": start.digest} | inputs)

    def _task(
        self, stage: str, problem: LearningProblem, parameters: dict[str, Any], seed: int, repeat: int, cost: float,
        inputs: dict[str, str], held: str = "",
    ) -> Task:  # fmt: skip
        return Task(
            method=self.name,
            stage=stage,
            version=self.version,
            system={"name": problem.name, "learned": problem.learned},
            parameters=parameters,
            inputs=inputs,
            seed=seed,
            repeat=repeat,
            cost=cost,
            needs=Needs(data=(held,) if held else ()),
        )


class _Planner:
    """Lays out the tasks of one realisation; `models` are the start and what each round gave."""

    def __init__(self, method: FederatedLearning, problem: LearningProblem, seed: int, repeat: int) -> None:
        self.method, self.problem, self.seed, self.repeat = method, problem, seed, repeat
        sources = problem.sources(seed, repeat)
        self.tasks = list(sources.tasks)
        self.prepared = {name: self._prepare(task) for name, task in sorted(sources.data.items())}
        self.public = self._prepare(sources.public)
        self.models = [self._add("start", {}, {"public": self.public.digest})]

    def round(self, number: int) -> None:
        """Every party trains, then the rule combines."""
        before = self.models[-1]
        training = self.method.training
        updates = {}
        for party in self.problem.parties:
            document = Fit(
                party=party, round=number, training=training, privacy=self.method.privacy, exchange=self.method.exchange
            ).document()
            inputs = {"model": before.digest, "start": self.models[0].digest}
            if not party.held:
                inputs["data"] = self.prepared[party.name].digest
            cost = self.method.local_steps * self.problem.samples * STEP_SECONDS
            updates[f"update-{party.name}"] = self._add("fit", document, inputs, cost, party.held).digest
        aggregation = Aggregation(round=number, rule=self.method.rule).document()
        self.models.append(self._add("aggregate", aggregation, {"model": before.digest} | updates))

    def evaluate(self) -> None:
        """Examine the parameters after every round."""
        digits = max(3, math.ceil(math.log10(len(self.models) + 1)))
        rounds = {f"model-{number:0{digits}d}": task.digest for number, task in enumerate(self.models)}
        inputs = {"start": self.models[0].digest, "public": self.public.digest} | rounds
        self._add("evaluate", {}, inputs, self.problem.samples * STEP_SECONDS * len(self.models))

    def _prepare(self, source: Task) -> Task:
        return self._add("prepare", {}, {"raw": source.digest}, 10 * self.problem.samples * STEP_SECONDS)

    def _add(self, stage: str, parameters: dict[str, Any], inputs: dict[str, str], cost: float = 0.0, held: str = "") -> Task:
        made = self.method._task(stage, self.problem, parameters, self.seed, self.repeat, TASK_SECONDS + cost, inputs, held)
        self.tasks.append(made)
        return made


def _problem(system: SystemSpec) -> LearningProblem:
    assert isinstance(system, LearningProblem)
    return system
