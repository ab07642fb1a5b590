"""Checkpoints in the queue of the federation: what a node leaves behind so that another goes on where it was.

Every function works inside a transaction of the caller's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select, update

from manybody.store.schema import checkpoints, members, queue, results


@dataclass(frozen=True)
class Left:
    """A checkpoint that a node has left; `signature` is by its key, over what the protocol's claim says."""

    attempt: str
    task: str
    digest: str
    nbytes: int
    fraction: float
    worker: str
    signature: str


@dataclass(frozen=True)
class Kept:
    """What became of a checkpoint that was offered: `unneeded` is the digest of an object that may be removed now."""

    state: Literal["kept", "early", "not held"]
    unneeded: str = ""


def keep(connection: Connection, member: int, left: Left, every_s: float) -> Kept:
    """Note a checkpoint of an attempt whose lease the member holds, in place of the one before.

    Early is what comes sooner than `every_s` seconds after the last one. Whatever is refused is not needed.
    """
    now = time.time()
    mine = (queue.c.attempt == left.attempt) & (queue.c.member == member) & (queue.c.state == "leased")
    wanted = mine & (queue.c.task == left.task) & queue.c.resumes.is_not(None)
    row = connection.execute(select(queue.c.checkpoint, queue.c.checkpointed).where(wanted).with_for_update()).one_or_none()
    if row is None:
        noted = connection.execute(select(queue.c.attempt).where(queue.c.checkpoint == left.digest).limit(1)).first()
        return Kept("not held", "" if noted is not None or _is_needed(connection, left.digest) else left.digest)
    if row.checkpointed is not None and 0 <= now - row.checkpointed < every_s:
        return Kept("early", left.digest if left.digest != row.checkpoint else "")
    changes = {
        "checkpoint": left.digest,
        "checkpoint_nbytes": left.nbytes,
        "checkpoint_fraction": left.fraction,
        "checkpoint_signature": left.signature,
        "checkpointed": now,
        "worker": left.worker,
    }
    connection.execute(update(queue).where(wanted).values(changes))
    replaced = row.checkpoint if row.checkpoint != left.digest and not _is_needed(connection, row.checkpoint) else ""
    return Kept("kept", replaced)


def _is_needed(connection: Connection, digest: str) -> bool:
    """Whether the ledger has taken a checkpoint over, or it is somebody's result: then it is not ours to remove."""
    wanted = (select(table.c.digest).where(table.c.digest == digest).limit(1) for table in (checkpoints, results))
    return any(connection.execute(query).first() is not None for query in wanted)


def contributors(connection: Connection, task_digest: str) -> set[str]:
    """The nodes that have left checkpoints of a task, where attempts went on from any: its result rests on their work, too."""
    resumed = select(queue.c.attempt).where((queue.c.task == task_digest) & (queue.c.resumes != "")).limit(1)
    if connection.execute(resumed).first() is None:
        return set()
    left = (queue.c.task == task_digest) & (queue.c.checkpoint != "")
    query = select(members.c.name).join(queue, members.c.id == queue.c.member).where(left)
    return set(connection.execute(query).scalars())
