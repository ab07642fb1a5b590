"""Secure aggregation under any of Flower's strategies that takes a mean: nobody sees a single client's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.task import Output, Task
from manybody.federate.errands import Errands
from manybody.federate.flower.grid import refusal
from manybody.federate.flower.training import WEIGHT, Client, Shelf, Training, record
from manybody.federate.secure_round import Party, SecureMean, secure_mean
from manybody.federate.secure_training import Work


@dataclass(frozen=True)
class SecureTraining:
    """`Training` whose answers leave the nodes masked (`federate.secure_sum`): every client replies with the mean of all.

    So a strategy that averages (FedAvg, FedProx, the FedOpt family, and privacy added by the server) gets what it would
    have got; one that compares clients (median, trimmed mean, Krum) finds them equal, and gives the mean as well. The
    mean is by samples, and each reply carries the same weight. Evaluation is as in `training`, and not masked.

    `threshold` clients, more than half of those that are asked, must stay to the end of a round. Data that shall stay
    with a node must not be among `Client.inputs`, which are in the store of whoever asks.
    """

    training: Training
    threshold: int
    fraction_bits: int = 32

    def task(self, message: Message, client: Client, shelf: Shelf) -> Task:
        """The task of a message for one client, such as an evaluation."""
        if message.metadata.message_type == "train":
            remedy = "Call send_and_receive with the messages of a round."
            raise InputError(Problem("message", "training asked of all clients at once", "a message by itself", remedy))
        return self.training.task(message, client, shelf)

    def reply(self, message: Message, result: Output) -> RecordDict:
        """A result as the content of a reply."""
        return self.training.reply(message, result)

    def together(
        self, messages: Sequence[Message], clients: Sequence[Client], shelf: Shelf, errands: Errands, timeout: float | None
    ) -> list[Message]:
        """A round of training, aggregated; a client that was lost on the way replies with why."""
        if not messages:
            return []
        tasks = [self.training.task(message, client, shelf) for message, client in zip(messages, clients, strict=True)]
        models = {task.inputs["model"] for task in tasks}
        if len(models) > 1:
            remedy = "Aggregate in the open with strategies that train several models."
            raise InputError(Problem("messages", "one model for all clients", f"{len(models)} models", remedy))
        parties = [_party(client, task) for client, task in zip(clients, tasks, strict=True)]
        model = shelf.objects.get(models.pop()).arrays
        try:
            mean = secure_mean(
                errands, shelf.objects, parties, model, self.threshold, fraction_bits=self.fraction_bits, timeout=timeout
            )  # fmt: skip
        except TaskError as error:
            return [
                refusal(message, client, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error))
                for message, client in zip(messages, clients, strict=True)
            ]
        return [_reply(message, client, mean) for message, client in zip(messages, clients, strict=True)]


def _party(client: Client, task: Task) -> Party:
    work = Work(
        method=task.method, stage=task.stage, version=task.version, system=task.system, parameters=task.parameters, seed=task.seed
    )
    return Party(client.name, work, client.inputs, client.node)


def _reply(message: Message, client: Client, mean: SecureMean) -> Message:
    if client.name not in mean.parties:
        return refusal(message, client, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, mean.lost[client.name])
    (name,) = message.content.array_records
    tensors = record({key: mean.tensors[key] for key in message.content.array_records[name]})
    weight = MetricRecord({WEIGHT: mean.weight / len(mean.parties)})
    return Message(RecordDict({name: tensors, "metrics": weight}), reply_to=message)
