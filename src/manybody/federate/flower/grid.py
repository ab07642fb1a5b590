"""Flower's grid over a backend: messages are submitted as tasks, events of the backend become replies."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from manybody.core.errors import InputError, ManybodyError, Problem
from manybody.core.protocols import Backend, Event
from manybody.core.task import Output, Task
from manybody.federate.flower.training import Client, Shelf
from manybody.store.objects import ObjectStore

TRIES = 3  # attempts at a task whose worker is lost each time, until its client is given up for the round


class Answering(Protocol):
    """How messages become tasks, and results replies: `Training` for a start."""

    def task(self, message: Message, client: Client, shelf: Shelf) -> Task:
        """The task that a message asks of a client; its inputs are digests of stored results."""

    def reply(self, message: Message, result: Output) -> RecordDict:
        """A result as the content of a reply; `ManybodyError` where it is none."""


@dataclass
class _Asked:
    """A message under way: its task, which attempt at it runs, and how many there have been."""

    message: Message
    task: Task
    client: Client
    attempt: str = ""
    tries: int = 0


class FlowerGrid(Grid):
    """Flower's grid over a `Backend`. A context, to be used from one thread, one at a time in a process::

        with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
            FedAdam().start(grid, initial_arrays=ArrayRecord(tensors), num_rounds=10)

    `objects` is the store that the backend takes inputs from. A task that fails, or answers with what is no model like
    the one that was sent, becomes an error reply, which strategies leave out. Replies come in the order of the clients,
    so that the bits of a round do not depend on who was first.
    """

    def __init__(self, backend: Backend, objects: ObjectStore, answering: Answering, clients: Sequence[Client]) -> None:
        names = [client.name for client in clients]
        if not names or len(set(names)) < len(names):
            came = ", ".join(names) or "none"
            raise InputError(Problem("clients", "at least one client, each of its own name", came, "Name each client once."))
        self._backend, self._answering, self._clients = backend, answering, tuple(clients)
        self._shelf = Shelf(objects)
        self._run = Run.create_empty(uuid.uuid4().int >> 65)  # 63 bits: Flower's numbers are signed
        self._asked: dict[str, _Asked] = {}
        self._attempts: dict[str, str] = {}
        self._replies: dict[str, Message] = {}

    def __enter__(self) -> Self:
        """Say who this process is: Flower's messages ask when they are made, and its runtime would have said it."""
        self._before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self._run.run_id, 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = self._before
        self._drop(set(self._asked))

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
        live = {node.name for node in self._backend.nodes()} if any(client.node for client in self._clients) else set()
        return [number for number, client in enumerate(self._clients, 1) if not client.node or client.node in live]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Submit a task for each message; returns the messages' names."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there now, each given once, in the order of the clients."""
        wanted = set(message_ids)
        self._hear(wanted, 0.0)
        return self._take(wanted)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies to messages, in the order of the clients; what takes longer than `timeout` seconds is stopped."""
        wanted = set(self.push_messages(messages))
        self._hear(wanted, timeout)
        self._drop(wanted - self._replies.keys())
        return self._take(wanted)

    def _push(self, message: Message) -> str:
        name: str = uuid.uuid4().hex
        message.metadata.__dict__["_message_id"] = name  # as Flower's own grids do
        client = self._clients[message.metadata.dst_node_id - 1]
        asked = self._asked[name] = _Asked(message, self._answering.task(message, client, self._shelf), client)
        self._submit(name, asked)
        return name

    def _submit(self, name: str, asked: _Asked) -> None:
        asked.attempt = uuid.uuid4().hex
        asked.tries += 1
        self._attempts[asked.attempt] = name
        self._backend.submit(asked.attempt, asked.task, asked.task.inputs, self._others(asked.client))

    def _others(self, client: Client) -> frozenset[str]:
        """What backends call workers, of every node that a client's tasks must not run on."""
        if not client.node:
            return frozenset()
        return frozenset(f"{node.name}/any" for node in self._backend.nodes() if node.name != client.node)

    def _hear(self, wanted: set[str], timeout: float | None) -> None:
        """Listen until all replies are there, for `timeout` seconds at most."""
        until = None if timeout is None else time.monotonic() + timeout
        heard = True
        while heard and not wanted <= self._replies.keys():
            heard = False
            for event in self._backend.events(None if until is None else max(0.0, until - time.monotonic())):
                self._note(event)
                heard = until is None or time.monotonic() < until
                if not heard or wanted <= self._replies.keys():
                    break

    def _note(self, event: Event) -> None:
        """Make a reply of what has ended; try again where a worker was lost."""
        if event.kind not in ("finished", "failed", "lost") or event.attempt not in self._attempts:
            return
        name = self._attempts.pop(event.attempt)
        asked = self._asked[name]
        if event.kind == "lost" and asked.tries < TRIES:
            self._submit(name, asked)
            return
        del self._asked[name]
        self._replies[name] = self._reply(asked, event)

    def _reply(self, asked: _Asked, event: Event) -> Message:
        """A result as a message, or why there is none."""
        if event.kind != "finished":
            code = ErrorCode.NODE_UNAVAILABLE if event.kind == "lost" else ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return _refusal(asked, code, event.reason)
        try:
            content = self._answering.reply(asked.message, self._shelf.objects.get(event.result))
        except ManybodyError as error:
            return _refusal(asked, ErrorCode.MOD_FAILED_PRECONDITION, str(error))
        return Message(content, reply_to=asked.message)

    def _take(self, wanted: set[str]) -> list[Message]:
        there = [self._replies.pop(name) for name in wanted & self._replies.keys()]
        return sorted(there, key=lambda message: message.metadata.src_node_id)

    def _drop(self, names: set[str]) -> None:
        """Stop what nobody waits for any more."""
        for name in names:
            asked = self._asked.pop(name)
            self._attempts.pop(asked.attempt, None)
            self._backend.cancel(asked.attempt)


def _refusal(asked: _Asked, code: int, reason: str) -> Message:
    return Message(Error(code, f"client {asked.client.name}: {reason}"), reply_to=asked.message)
