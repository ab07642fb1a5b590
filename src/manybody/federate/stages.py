"""The tasks of federated learning: what a node runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import numpy as np

from manybody.core import catalog
from manybody.core.digest import digest_bytes
from manybody.core.errors import InputError, TaskError
from manybody.core.learning import Learner, LearningProblem, Trained
from manybody.core.protocols import Context
from manybody.core.random import Key
from manybody.core.task import Output, Progress, Task
from manybody.federate.message import AGREED, TENSOR, contribution, part, sent, state_of, state_output
from manybody.federate.privacy import noised, privatised, secret_key
from manybody.federate.rule import ServerState
from manybody.federate.spec import Aggregation, Fit
from manybody.federate.tensors import NamedTensors, Round, named
from manybody.store.held import held, noise_secret


def prepare(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Data ready to train on, from a task that made them."""
    return _learner(task, context).prepare(_input(task, inputs, "raw"))


def start(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The parameters that all start with, and what else all agree on, from public data."""
    parameters, agreed = _learner(task, context).start(_input(task, inputs, "public"), task.key)
    return state_output(ServerState(named(parameters)), agreed)


def fit(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """One party's training in one round.

    Arrays ``tensor.NAME``: its parameters after training, or with an exchange ``message.NAME``: the change, compressed.
    Document: samples, variance, loss (none of them with privacy), capacity, and the digest of held data.
    """
    asked = Fit.model_validate(task.parameters)
    learner = _learner(task, context)
    before = part(_input(task, inputs, "model"), TENSOR)
    own = asked.party.held
    data = learner.prepare(learner.read(held(own))) if own else _input(task, inputs, "data")
    context.progress(Progress(0.1))
    trained = learner.train(before, part(_input(task, inputs, "start"), AGREED), data, asked.training)
    change = _change(task, asked, before, trained)
    if asked.privacy is not None:
        change = _private(task, asked, trained.samples, named(change, asked.party.name))
    document = _facts(asked, trained) | ({"held": _mark(asked, str(data.document["digest"]))} if own else {})
    if asked.exchange is None:
        arrays, told = sent({name: before[name] + change[name] for name in before}, None, task.label)
    else:
        arrays, told = sent(change, asked.exchange.bound, task.label)
    return Output(arrays, document | told)


def _mark(asked: Fit, digest: str) -> str:
    """What tells of which held data a result is: their digest. With privacy, what only the node's secret can make of it.

    A plain digest would let anyone who has a guess at the data confirm it, which no account covers.
    """
    return digest if asked.privacy is None else f"{secret_key(Key(0).derive('held', digest), noise_secret()).value:032x}"


def _change(task: Task, asked: Fit, before: NamedTensors, trained: Trained) -> NamedTensors:
    """What a party's training changed, times its multiplier."""
    change = {name: asked.party.multiplier * (np.asarray(trained.parameters[name]) - before[name]) for name in before}
    for name, values in change.items():
        if not np.isfinite(values).all():
            remedy = "Lower `learning_rate` or `local_steps`."
            raise TaskError(f"{task.label}: expected a finite update of `{name}` by {asked.party.name}; it diverged. {remedy}")
    return change


def _private(task: Task, asked: Fit, samples: int, change: NamedTensors) -> NamedTensors:
    """Clipped (unless every record's gradient was) and noised, in proportion to the most that one of those hidden moves it.

    The noise derives from the node's secret, the task and the update itself. So the same update computed again gets the
    same noise, and averaging tells nothing; another update gets noise of its own, and a difference tells nothing either.
    """
    content = b"".join(name.encode() + values.tobytes() for name, values in sorted(change.items()))
    key = secret_key(task.key.derive("update", digest_bytes(content)), noise_secret())
    privacy = asked.privacy
    assert privacy is not None
    if privacy.unit == "node":
        return privatised(change, privacy.clip, privacy.noise, key)
    moved = asked.training.learning_rate * privacy.clip / samples * max(1.0, abs(asked.party.multiplier))
    return noised(change, privacy.noise * moved, key)


def _facts(asked: Fit, trained: Trained) -> dict[str, Any]:
    """What is told beside the update; with privacy nothing that depends on the data, for it would not be accounted for."""
    facts: dict[str, Any] = {"capacity": asked.party.capacity}
    if asked.privacy is None:
        facts |= {"samples": trained.samples, "variance": trained.variance, "loss": trained.loss}
    return facts


def aggregate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The parameters after a round, by the rule; contributions that do not fit are left out, and named in the document."""
    asked = Aggregation.model_validate(task.parameters)
    state = state_of(_input(task, inputs, "model"))
    if state.rounds == 0:
        state = asked.rule.start(state.parameters)
    contributions, refused = [], {}
    for name in sorted(inputs):
        if name.startswith("update-"):
            party = name.removeprefix("update-")
            try:
                contributions.append(contribution(party, inputs[name], state.parameters))
            except InputError as error:  # a message that cannot be read is that party's fault, not the round's
                refused[party] = str(error)
    round_ = Round.sift(contributions, state.parameters)
    refused |= {party: "; ".join(map(str, problems)) for party, problems in round_.refused.items()}
    return state_output(asked.rule.step(state, round_), {}, parties=list(round_.nodes), refused=refused)


def evaluate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """What the learner can tell of the parameters after every round, on public data."""
    rounds = [part(inputs[name], TENSOR) for name in sorted(inputs) if name.startswith("model-")]
    agreed = part(_input(task, inputs, "start"), AGREED)
    return _learner(task, context).examine(rounds, agreed, _input(task, inputs, "public"))


def pool(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The losses of all parties in closed form, as `core.learning.Learner.pooled` gives them; empty where there is none."""
    begin = _input(task, inputs, "start")
    data = {name.removeprefix("data-"): output for name, output in inputs.items() if name.startswith("data-")}
    found = _learner(task, context).pooled(part(begin, TENSOR), part(begin, AGREED), data)
    return found if found is not None else Output({}, {"samples": {}})


def _learner(task: Task, context: Context) -> Learner:
    """The learner of a task's problem: named by an installed class, never by the task itself."""
    problem = cast("type[LearningProblem]", catalog.load_spec("systems", str(task.system["name"])))
    module, _, name = problem.learner.partition(":")
    return cast("Learner", getattr(import_module(module), name)(task.system["learned"], context.device))


def _input(task: Task, inputs: Mapping[str, Output], name: str) -> Output:
    if name not in inputs:
        raise TaskError(f"{task.label}: expected an input `{name}`; got {', '.join(inputs) or 'none'}. Add it to the task.")
    return inputs[name]
