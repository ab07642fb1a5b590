"""What a conductor and a worker tell each other: one JSON object a line, parsed once into these types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from manybody.core.errors import ManybodyError
from manybody.core.spec import Frozen
from manybody.core.task import Progress, Task


class BackendError(ManybodyError):
    """A backend cannot run tasks at all: its workers do not start, or speak another language."""


class Run(Frozen):
    """To a worker: compute a task. `inputs` maps the names of its inputs to digests of results.

    `checkpoint` is the digest of the one to go on from, empty where there is none yet, None where none are wanted.
    """

    kind: Literal["run"] = "run"
    attempt: str
    task: Task
    inputs: dict[str, str]
    checkpoint: str | None = None


class Ready(Frozen):
    """From a worker: it has started and waits for tasks."""

    kind: Literal["ready"] = "ready"


class Progressed(Frozen):
    """From a worker: how far it is. A diverging task may well report NaN or infinity, and that is to be seen."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    kind: Literal["progress"] = "progress"
    attempt: str
    progress: Progress


class Checkpointed(Frozen):
    """From a worker: a checkpoint is in the store, and how far the task was."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    kind: Literal["checkpoint"] = "checkpoint"
    attempt: str
    digest: str
    nbytes: int
    progress: Progress


class Finished(Frozen):
    """From a worker: the result is in the store."""

    kind: Literal["finished"] = "finished"
    attempt: str
    result: str
    nbytes: int
    seconds: float


class Failed(Frozen):
    """From a worker: the task gave no result, and why; `node_fault` where its store could not do what was asked."""

    kind: Literal["failed"] = "failed"
    attempt: str
    reason: str
    seconds: float
    node_fault: bool = False


Report = Ready | Progressed | Checkpointed | Finished | Failed
_FROM_WORKER: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="kind")])


def write(message: Run | Report) -> bytes:
    """A message as the line that is sent."""
    return message.model_dump_json().encode() + b"\n"


def read_order(line: bytes) -> Run:
    """What a worker is told by a line."""
    return Run.model_validate_json(line)


def read_report(line: bytes) -> Report:
    """What a worker says by a line; anything else raises `BackendError`."""
    try:
        return _FROM_WORKER.validate_json(line)
    except ValidationError as error:
        raise BackendError(f"A worker said {line[:200]!r}, which is no message of this version: {error}") from error
