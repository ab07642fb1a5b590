"""Flower's grid over a backend: messages are submitted as tasks, events of the backend become replies."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from manybody.core.errors import InputError, ManybodyError, Problem
from manybody.core.protocols import Backend, Event
from manybody.core.task import Output, Task
from manybody.federate.errands import Errands
from manybody.federate.flower.training import Client, Shelf
from manybody.store.objects import ObjectStore


class Answering(Protocol):
    """How messages become tasks, and results replies: `Training` for a start."""

    def task(self, message: Message, client: Client, shelf: Shelf) -> Task:
        """The task that a message asks of a client; its inputs are digests of stored results."""

    def reply(self, message: Message, result: Output) -> RecordDict:
        """A result as the content of a reply; `ManybodyError` where it is none."""


@runtime_checkable
class Together(Protocol):
    """What an `Answering` may offer besides: answers to messages for training that are found by all clients together."""

    def together(
        self, messages: Sequence[Message], clients: Sequence[Client], shelf: Shelf, errands: Errands, timeout: float | None
    ) -> list[Message]:
        """The replies to messages, `clients` being whom they are for."""


class FlowerGrid(Grid):
    """Flower's grid over a `Backend`. A context, to be used from one thread, one at a time in a process::

        with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
            FedAdam().start(grid, initial_arrays=record(tensors), num_rounds=10)

    `objects` is the store that the backend takes inputs from. A task that fails, or answers with what is no model like
    the one that was sent, becomes an error reply, which strategies leave out. Replies come in the order of the clients,
    so that the bits of a round do not depend on who was first.
    """

    def __init__(self, backend: Backend, objects: ObjectStore, answering: Answering, clients: Sequence[Client]) -> None:
        names = [client.name for client in clients]
        if not names or len(set(names)) < len(names):
            came = ", ".join(names) or "none"
            raise InputError(Problem("clients", "at least one client, each of its own name", came, "Name each client once."))
        self._errands, self._answering, self._clients = Errands(backend), answering, tuple(clients)
        self._shelf = Shelf(objects)
        self._run = Run.create_empty(uuid.uuid4().int >> 65)  # 63 bits: Flower's numbers are signed
        self._asked: dict[str, Message] = {}

    def __enter__(self) -> Self:
        """Say who this process is: Flower's messages ask when they are made, and its runtime would have said it."""
        self._before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self._run.run_id, 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = self._before
        self._errands.drop()

    @property
    def run(self) -> Run:
        """Flower's record of the run; only its number means something here."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take another record of the run."""
        self._run = run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message, by Flower's older interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The clients that are there, numbered from 1 in the order that they were given in."""
        live = {node.name for node in self._errands.backend.nodes()} if any(client.node for client in self._clients) else set()
        return [number for number, client in enumerate(self._clients, 1) if not client.node or client.node in live]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Submit a task for each message; returns the messages' names."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there now, each given once, in the order of the clients."""
        names = [name for name in message_ids if name in self._asked]
        self._errands.hear(names, 0.0)
        there = {name: self._errands.ended.pop(name) for name in names if name in self._errands.ended}
        return in_order([self._reply(self._asked.pop(name), event) for name, event in there.items()])

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies to messages, in the order of the clients; what takes longer than `timeout` seconds is stopped."""
        messages = list(messages)
        if isinstance(self._answering, Together) and all(each.metadata.message_type == "train" for each in messages):
            asked = [self._client(message) for message in messages]
            return in_order(self._answering.together(messages, asked, self._shelf, self._errands, timeout))
        names = [self._push(message) for message in messages]
        ended = zip(names, self._errands.gather(names, timeout), strict=True)
        told = [(self._asked.pop(name), event) for name, event in ended]
        return in_order([self._reply(message, event) for message, event in told if event is not None])

    def _client(self, message: Message) -> Client:
        number: int = message.metadata.dst_node_id
        return self._clients[number - 1]

    def _push(self, message: Message) -> str:
        name: str = uuid.uuid4().hex
        message.metadata.__dict__["_message_id"] = name  # as Flower's own grids do
        client = self._client(message)
        self._errands.give(name, self._answering.task(message, client, self._shelf), client.node)
        self._asked[name] = message
        return name

    def _reply(self, message: Message, event: Event) -> Message:
        """A result as a message, or why there is none."""
        client = self._client(message)
        if event.kind == "lost":
            return refusal(message, client, ErrorCode.NODE_UNAVAILABLE, event.reason)
        if event.kind == "failed":
            return refusal(message, client, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, event.reason)
        try:
            content = self._answering.reply(message, self._shelf.objects.get(event.result))
        except ManybodyError as error:
            return refusal(message, client, ErrorCode.MOD_FAILED_PRECONDITION, str(error))
        return Message(content, reply_to=message)


def in_order(replies: Iterable[Message]) -> list[Message]:
    """Replies in the order of the clients."""
    return sorted(replies, key=lambda message: message.metadata.src_node_id)


def refusal(message: Message, client: Client, code: int, reason: str) -> Message:
    """The reply that there is no answer."""
    return Message(Error(code, f"client {client.name}: {reason}"), reply_to=message)
