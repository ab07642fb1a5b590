"""The wire protocol of the federation: versions, limits, and every message as a type. Described in docs/protocol.md.

Messages are JSON, parsed once and strictly into these types: unknown fields, missing fields and loose types are
refused. Times travel as durations, never as times of day: no two clocks have to agree.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from manybody.core.digest import canonical_json
from manybody.core.spec import Frozen
from manybody.core.task import Progress, Task

VERSIONS: tuple[int, ...] = (1, 2)  # spoken by this release, best last; leave old ones in for as long as nodes have them
VERSION_HEADER = "manybody-protocol"
ATTEMPT_HEADER = "manybody-attempt"  # for which lease an object is fetched or stored
OFFSET_HEADER = "upload-offset"
LENGTH_HEADER = "upload-length"

MESSAGE_LIMIT = 1 << 20  # bytes of a JSON message
HEAD_LIMIT = 1 << 15  # bytes of a request's line and headers
REASON_LIMIT = 16_384  # characters of a reason
ORDERS_LIMIT = 1024  # attempts a message may name
INLINE_LIMIT = 16_384  # bytes of a result that may come inside a message
FINISH_LIMIT = 32  # results a message
WAIT_LIMIT_S = 60.0  # the longest that a node may be kept waiting for work

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Attempt = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]  # names of workers: printable, no spaces
Pem = Annotated[str, StringConstraints(max_length=8192)]
Reason = Annotated[str, StringConstraints(max_length=REASON_LIMIT)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Load = Annotated[float | None, Field(ge=0, le=1e9, allow_inf_nan=False)]  # tasks that run or want to, averaged over a minute


class AskAuthority(Frozen):
    """To `/v1/join`, by one who has only an invitation: show me the authority's certificate. Gives nothing away."""

    kind: Literal["authority"] = "authority"


class AskMembership(Frozen):
    """To `/v1/join`, once the authority has been verified against the invitation: sign my key."""

    kind: Literal["join"] = "join"
    token: Annotated[str, StringConstraints(max_length=256)]
    request: Pem
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]


Joining = Annotated[AskAuthority | AskMembership, Field(discriminator="kind")]
JOINING: TypeAdapter[AskAuthority | AskMembership] = TypeAdapter(Joining)


class Authority(Frozen):
    """The authority's certificate."""

    certificate: Pem


class Membership(Frozen):
    """A signed key, and the name and role that it stands for."""

    name: str
    role: Literal["node", "client"]
    certificate: Pem


class Hello(Frozen):
    """To `/v1/hello`: the versions that the caller speaks."""

    versions: Annotated[tuple[int, ...], Field(min_length=1, max_length=64)]


class Welcome(Frozen):
    """The version to speak from now on, and the limits that hold.

    From version 2: seconds between checkpoints of a task, and the most bytes of one.
    """

    version: int
    name: str
    role: Literal["node", "client"]
    lease_s: float
    object_limit: int
    checkpoint_s: Seconds = 0.0
    checkpoint_limit: int = 0


class Installed(Frozen):
    """A method that a node has: its version and stages."""

    version: Annotated[str, StringConstraints(max_length=64)]
    stages: Annotated[tuple[Annotated[str, StringConstraints(max_length=128)], ...], Field(max_length=256)]


class Report(Frozen):
    """To `/v1/node`: what a node has and can do. `speed` is in core-seconds of predicted cost done a second and core.

    From version 2, `data` are the names of those that it holds and never sends.
    """

    workers: int = Field(ge=1, le=100_000)
    threads: int = Field(ge=1, le=100_000)
    memory_bytes: int = Field(ge=0)
    devices: Annotated[tuple[Annotated[str, StringConstraints(max_length=256)], ...], Field(max_length=256)] = ()
    methods: Annotated[dict[Annotated[str, StringConstraints(max_length=128)], Installed], Field(max_length=1024)]
    speed: dict[Annotated[str, StringConstraints(max_length=128)], Seconds] = {}
    provenance: dict[str, str | int] = {}
    data: Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=4096)] = ()


class AskWork(Frozen):
    """To `/v1/lease`: up to `free` attempts, waiting at most `wait_s` for the first. `load` from version 2."""

    free: int = Field(ge=1, le=ORDERS_LIMIT)
    wait_s: float = Field(ge=0, le=WAIT_LIMIT_S)
    load: Load = None


class Order(Frozen):
    """An attempt for a node to run. Its lease lasts `lease_s` from now unless prolonged, and `deadline_s` at most.

    From version 2, `checkpoint` is the one to go on from, empty where there is none yet, null where none are wanted.
    """

    attempt: Attempt
    task: Task
    inputs: dict[str, Digest]
    avoid: tuple[str, ...]
    lease_s: float
    deadline_s: float
    checkpoint: Digest | Literal[""] | None = None


class Work(Frozen):
    """What there is to do; empty when nothing came within the wait."""

    orders: tuple[Order, ...]


class Advance(Frozen):
    """How far a leased attempt is, and on which worker; empty before it has started. NaN may be told, to be seen."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    attempt: Attempt
    worker: Label | Literal[""] = ""
    progress: Progress | None = None


class Heartbeat(Frozen):
    """To `/v1/heartbeat`: the attempts that a node works on. Prolongs their leases. `load` from version 2."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    attempts: Annotated[tuple[Advance, ...], Field(max_length=ORDERS_LIMIT)]
    load: Load = None


class Held(Frozen):
    """Of the attempts that a heartbeat named, those that the node still holds: the others it should drop."""

    attempts: tuple[str, ...]


class Checkpoint(Frozen):
    """To `/v1/checkpoint`, from version 2: a checkpoint of a leased attempt is in the store. Signed over `checkpoint_claim`."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    attempt: Attempt
    task: Digest
    checkpoint: Digest
    worker: Label
    signature: Annotated[str, StringConstraints(max_length=512)]
    progress: Progress | None = None


class Finish(Frozen):
    """An attempt's result: in the store already, or as base64 in `content`. Signed over what `claim` gives."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    attempt: Attempt
    task: Digest
    result: Digest
    worker: Label
    seconds: Seconds
    signature: Annotated[str, StringConstraints(max_length=512)]
    progress: Progress | None = None
    content: Annotated[str, StringConstraints(max_length=4 * (INLINE_LIMIT // 3 + 1))] = ""


class Finished(Frozen):
    """To `/v1/finish`: what a node has finished since it last said so."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    results: Annotated[tuple[Finish, ...], Field(min_length=1, max_length=FINISH_LIMIT)]


class Judged(Frozen):
    """The results that were refused, with their status and the reason; the others are taken and durable."""

    refused: dict[str, tuple[int, str]]


class Fail(Frozen):
    """To `/v1/fail`: the task itself gave no result (`lost` false), or this node could not do it (`lost` true)."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)

    attempt: Attempt
    worker: Label
    seconds: Seconds
    reason: Reason
    lost: bool
    progress: Progress | None = None


class Leave(Frozen):
    """To `/v1/leave`: this member goes."""


class Accepted(Frozen):
    """The message was taken and is durable."""

    accepted: Literal[True] = True


class Refusal(Frozen):
    """Why a request was refused: what was expected, what came, what to do."""

    problem: str


def claim(attempt: str, task: str, result: str, node: str, version: int) -> bytes:
    """What a node signs: that it computed this result of this task, under this attempt and protocol version."""
    document: dict[str, Any] = {"attempt": attempt, "node": node, "protocol": version, "result": result, "task": task}
    return canonical_json(document).encode()


def checkpoint_claim(attempt: str, task: str, checkpoint: str, node: str, version: int) -> bytes:
    """What a node signs: that it has left this checkpoint of this task, under this attempt and protocol version."""
    document: dict[str, Any] = {
        "attempt": attempt,
        "checkpoint": checkpoint,
        "node": node,
        "protocol": version,
        "task": task,
    }
    return canonical_json(document).encode()


_NEW_IN_2: dict[type[BaseModel], Any] = {
    Report: {"data"},
    Welcome: {"checkpoint_s", "checkpoint_limit"},
    AskWork: {"load"},
    Heartbeat: {"load"},
    Work: {"orders": {"__all__": {"checkpoint": True, "task": {"needs": True}}}},
}


def write(message: BaseModel, version: int) -> str:
    """A message as the other side, which speaks `version`, knows it: it refuses fields that came later."""
    return message.model_dump_json(exclude=_NEW_IN_2.get(type(message)) if version < 2 else None)


def common_version(theirs: tuple[int, ...]) -> int | None:
    """The best version that both sides speak."""
    return max(set(VERSIONS) & set(theirs), default=None)
