"""What nodes do for a strategy: a message with a model becomes a task of a stage, and its result the reply."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from manybody.core import catalog
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import MethodSpec
from manybody.core.task import Output, Task
from manybody.federate.tensors import as_array
from manybody.store.objects import ObjectStore

Setting: TypeAlias = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]
ROUND = "server-round"  # the one setting that every message has
WEIGHT = "num-examples"  # what Flower's strategies call the number of samples, unless told otherwise


@dataclass(frozen=True)
class Client:
    """One of what Flower calls nodes: somebody's data, and the parameters of the tasks on them.

    `inputs` maps the names of further inputs to digests of stored results, such as the data. With `node`, its tasks
    run on the node of this name and no other while that one is there, and it counts as connected only then.
    """

    name: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""


def record(tensors: Mapping[str, Any]) -> ArrayRecord:
    """Named tensors, of numpy or torch, as Flower's strategies take them."""
    return ArrayRecord({name: Array(as_array(tensor)) for name, tensor in tensors.items()})


def tensors(found: ArrayRecord) -> dict[str, np.ndarray]:
    """Named tensors of what Flower's strategies give."""
    return {name: array.numpy() for name, array in found.items()}


class Shelf:
    """A store for what messages carry, which puts a model away once while messages come with the very same bytes."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self._record, self._digest = ArrayRecord(), ""

    def put(self, content: RecordDict) -> str:
        """The digest of the model in a message."""
        found = _only_model(content)
        if not self._digest or not _is_same(self._record, found):
            self._digest = self.objects.put(Output(tensors(found))).digest
            self._record = ArrayRecord(dict(found))
        return self._digest


@dataclass(frozen=True)
class Training:
    """A method's stages as what answers Flower's messages.

    A message of type ``train`` becomes a task of the stage `fit` of the installed `method`, ``evaluate`` one of the
    stage `evaluate` (`stages`): the input `model` holds the named tensors, `Client.inputs` and `Client.parameters` say
    the rest. `settings` maps Flower's settings, such as ``proximal-mu``, to the parameter that each becomes (``pull``,
    or ``training.pull`` within a group); one that is not named would have no effect, so it is refused (but the number
    of the round, which every message has).

    A stage answers with tensors of the same names, shapes and types, and a document whose numbers are the metrics;
    `samples` is how much the answer weighs.
    """

    method: str
    stages: Mapping[str, str] = field(default_factory=lambda: {"train": "fit", "evaluate": "evaluate"})
    settings: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        stages = {**self._spec.stages, **self._spec.masked}
        problems = [
            Problem("stages", f"a stage of {self.method} ({', '.join(stages)})", f"`{stage}` for `{kind}`", "See its `stages`.")
            for kind, stage in self.stages.items()
            if stage not in stages
        ]
        if problems:
            raise InputError(*problems)

    @property
    def version(self) -> str:
        """The version of the method that is installed here."""
        return self._spec.version

    @property
    def _spec(self) -> type[MethodSpec]:
        return cast("type[MethodSpec]", catalog.load_spec("methods", self.method))

    def task(self, message: Message, client: Client, shelf: Shelf) -> Task:
        """The task that a message asks of a client; its inputs are digests of stored results."""
        kind = message.metadata.message_type
        if kind not in self.stages:
            remedy = "Say with `stages` which stage answers it."
            raise InputError(Problem("message", f"of type {', '.join(self.stages)}", f"`{kind}`", remedy))
        inputs = dict(client.inputs) | {"model": shelf.put(message.content)}
        return Task(
            method=self.method, stage=self.stages[kind], version=self.version, system=dict(self.system),
            parameters=self.parameters(message.content, client), inputs=inputs, seed=self.seed,
        )  # fmt: skip

    def parameters(self, content: RecordDict, client: Client) -> dict[str, Any]:
        """The parameters of a client's task: its own, and the settings of a message."""
        found = deepcopy(dict(client.parameters))
        for name, value in settings_of(content).items():
            if name in self.settings:
                *groups, last = self.settings[name].split(".")
                place = found
                for group in groups:
                    place = place.setdefault(group, {})
                place[last] = value
            elif name != ROUND:
                remedy = f"Say which parameter it becomes: settings={{'{name}': ...}}."
                raise InputError(Problem("settings", "settings that a stage reads", f"`{name}`, which none does", remedy))
        return found

    def reply(self, message: Message, result: Output) -> RecordDict:
        """A result as the content of a reply: metrics, and where the message asked for training the tensors.

        Raises `InputError` where the tensors are not of the names, shapes and types that were sent, or not finite, or
        where the document does not say how many `samples` they stand for.
        """
        content = RecordDict({"metrics": metrics(result.document)})
        if message.metadata.message_type != "evaluate":
            (name, sent), *_ = message.content.array_records.items()
            content[name] = ArrayRecord({key: Array(checked(key, array, result.arrays)) for key, array in sent.items()})
        return content


def _only_model(content: RecordDict) -> ArrayRecord:
    """The one set of tensors that a message has."""
    found = list(content.array_records.values())
    if len(found) != 1:
        remedy = "Strategies that send anything but one model have no bridge."
        raise InputError(Problem("message", "one set of tensors", f"{len(found)}", remedy))
    return found[0]


def _is_same(one: ArrayRecord, other: ArrayRecord) -> bool:
    """Whether two records hold the same bytes objects, which never change: comparing contents would take time."""
    return one.keys() == other.keys() and all(array.data is other[name].data for name, array in one.items())


def settings_of(content: RecordDict) -> dict[str, Setting]:
    """The settings of a message by name. Raises `InputError` for bytes, which are no parameter of a task."""
    found: dict[str, Setting] = {}
    for record in content.config_records.values():
        for name, value in record.items():
            if isinstance(value, bytes) or (isinstance(value, list) and any(isinstance(each, bytes) for each in value)):
                raise InputError(Problem(f"setting {name}", "a number, text, or a list of them", "bytes", "Send it as a tensor."))
            found[name] = cast("Setting", value)
    return found


def metrics(document: Mapping[str, Any]) -> MetricRecord:
    """The numbers of a document, and lists of them; `samples` under the name that Flower weighs by."""
    samples = document.get("samples")
    if isinstance(samples, bool) or not isinstance(samples, int | float) or not samples > 0:
        remedy = "Put the number of samples that the answer stands for into the document."
        raise InputError(Problem("answer", "`samples`, a positive number, in its document", f"{samples!r}", remedy))
    numbers = {name: value for name, value in document.items() if name != "samples" and _is_numeric(value)}
    return MetricRecord({WEIGHT: samples} | numbers)


def _is_numeric(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and len({type(each) for each in value}) == 1 and _is_numeric(value[0])
    return isinstance(value, int | float) and not isinstance(value, bool)


def checked(name: str, sent: Array, answered: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tensor of an answer that is called `name`; `InputError` where it is not as the one that was `sent`."""
    expected = f"{sent.dtype}{list(sent.shape)}"
    array = answered.get(name)
    if array is None:
        raise InputError(Problem(f"tensor {name}", expected, "nothing", "The stage must give every tensor of the model back."))
    if (str(array.dtype), array.shape) != (sent.dtype, tuple(sent.shape)):
        came = f"{array.dtype}{list(array.shape)}"
        raise InputError(Problem(f"tensor {name}", expected, came, "All clients must train the same model."))
    if array.dtype.kind in "fc" and not np.all(np.isfinite(array)):
        raise InputError(Problem(f"tensor {name}", "finite numbers", "NaN or infinity", "This client is left out of the round."))
    return array
