"""The queue of the federation: attempts wait in the ledger until a node leases them, and end there.

One row an attempt. Whatever happens to it is one conditional update, so that of two that try one succeeds: only the
member that holds the lease may end it, and only once. Every function works inside a transaction of the caller's.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, bindparam, case, func, or_, select, tuple_, update

from manybody.core.digest import canonical_json
from manybody.core.task import Needs, Task
from manybody.store.database import Database
from manybody.store.liveness import Owner
from manybody.store.schema import attempts as claims
from manybody.store.schema import members, queue

State = Literal["waiting", "leased", "finished", "failed", "lost", "cancelled", "follows"]
_STANDING = (
    "state", "worker", "progress", "result", "nbytes", "seconds", "reason",
    "checkpoint", "checkpoint_nbytes", "checkpoint_fraction",
)  # fmt: skip
TWIN = "-twin"  # an attempt that is named like another but for this is a second try of it: the first to finish counts
_PAGE, _SPARE = 64, 4  # rows looked at a time, and beyond those that are wanted, for some that a node may not run
_MINE = (queue.c.attempt == bindparam("held")) & (queue.c.member == bindparam("holder")) & (queue.c.state == "leased")
_LEASED = select(queue).where(_MINE)
_END = update(queue).where(_MINE)
_END_OF_TASK = _END.where(queue.c.task == bindparam("of_task"))


@dataclass(frozen=True)
class Queued:
    """An attempt that a node is to run. `deadline_s` counts from the lease.

    `resumes` is the digest of the checkpoint to go on from, empty where there is none yet, None where none are wanted.
    """

    attempt: str
    task: Task
    inputs: Mapping[str, str]
    avoid: frozenset[str]
    deadline_s: float
    resumes: str | None = None

    @classmethod
    def read(cls, row: RowMapping) -> Queued:
        """From a row of the queue."""
        avoid = frozenset(json.loads(row["avoid"]))
        task = Task.model_validate_json(row["document"])
        return cls(row["attempt"], task, json.loads(row["inputs"]), avoid, row["deadline_s"], row["resumes"])


@dataclass(frozen=True)
class Standing:
    """Where an attempt stands, as whoever asked for it sees it."""

    attempt: str
    task: str
    state: State
    worker: str
    progress: str
    result: str
    nbytes: int
    seconds: float
    reason: str
    checkpoint: str
    checkpoint_nbytes: int
    checkpoint_fraction: float


@dataclass(frozen=True)
class Ended:
    """How a node says that an attempt ended; `signature` is by its key, over what the protocol's claim says."""

    attempt: str
    state: Literal["finished", "failed", "lost"]
    worker: str
    seconds: float
    result: str = ""
    nbytes: int = 0
    reason: str = ""
    signature: str = ""
    protocol: int = 0
    progress: str = ""


@dataclass(frozen=True)
class Proof:
    """Who says to have computed a result, and the signature that shows it."""

    attempt: str
    task: str
    result: str
    node: str
    certificate: str
    signature: str
    protocol: int


def submit(connection: Connection, wanted: Queued, refused: str = "", orphaned: bool = True) -> None:
    """Queue an attempt; one that is `refused`, with the reason, is failed from the start.

    Where an attempt at the same task has finished, or is running, for a process that is gone, and nobody has recorded
    its result, the new one follows it: work is not done twice because its reader was killed. `orphaned` false says
    that there is none (`orphans`).
    """
    source = _orphan(connection, wanted) if orphaned and not refused else None
    now = time.time()
    row = {
        "attempt": wanted.attempt,
        "task": wanted.task.digest,
        "method": wanted.task.method,
        "version": wanted.task.version,
        "document": canonical_json(wanted.task.model_dump(mode="json")),
        "inputs": canonical_json(dict(wanted.inputs)),
        "avoid": canonical_json(sorted(wanted.avoid)),
        "owner": Owner.this().label,
        "state": "failed" if refused else "follows" if source else "waiting",
        "source": source or (wanted.attempt.removesuffix(TWIN) if wanted.attempt.endswith(TWIN) else None),
        "reason": refused,
        "submitted": now,
        "ended": now if refused else None,
        "deadline_s": wanted.deadline_s,
        "resumes": wanted.resumes,
    }
    connection.execute(queue.insert(), row)


def orphans(connection: Connection) -> set[str]:
    """The tasks that attempts of processes that are gone have finished, or are running, unrecorded."""
    others = queue.c.owner != Owner.this().label
    query = select(queue.c.task, queue.c.owner).where(others & _unrecorded())
    gone: dict[str, bool] = {}
    found = set()
    for task, label in connection.execute(query):
        if label not in gone:
            owner = Owner.parse(label)
            gone[label] = owner is not None and owner.is_gone()
        if gone[label]:
            found.add(str(task))
    return found


def _orphan(connection: Connection, wanted: Queued) -> str | None:
    """An attempt at the same, finished or running, whose result has not been recorded and whose reader is gone."""
    same = (queue.c.task == wanted.task.digest) & (queue.c.inputs == canonical_json(dict(wanted.inputs)))
    query = select(queue.c.attempt, queue.c.owner, queue.c.worker).where(same & _unrecorded())
    for attempt, label, worker in connection.execute(query.order_by(queue.c.submitted)):
        owner = Owner.parse(label)
        if owner is not None and owner.is_gone() and not {worker, worker.partition("/")[0]} & wanted.avoid:
            return str(attempt)
    return None


def _unrecorded() -> ColumnElement[bool]:
    """Attempts that are running or finished and have not reached the ledger, neither themselves nor by one that follows.

    Those that were never claimed there are not among them: nobody was to record them, and what they gave may be gone.
    """
    itself = claims.c.id.in_((queue.c.attempt, queue.c.source))  # `source` of one that does not follow: whose twin it is
    recorded = select(claims.c.id).where(itself & (claims.c.state == "finished"))
    follower = queue.alias("follower")
    followed = select(follower.c.attempt).join(claims, claims.c.id == follower.c.attempt)
    followed = followed.where((follower.c.source == queue.c.attempt) & (claims.c.state == "finished"))
    claimed = select(claims.c.id).where(itself).exists()
    return queue.c.state.in_(("finished", "leased")) & claimed & ~recorded.exists() & ~followed.exists()


def standings(connection: Connection, asked: Iterable[str]) -> list[Standing]:
    """Where attempts stand that are not merely waiting; one that follows another stands where that one does."""
    found = connection.execute(_standings(), {"asked": list(asked)})
    return [Standing(*row) for row in found]  # columns in the order of its fields


@cache
def _standings() -> Select[Any]:
    """The query of `standings`, made once: making it costs more than asking it."""
    source = queue.alias("source")
    follows = queue.c.state == "follows"
    columns = [case((follows, source.c[name]), else_=queue.c[name]).label(name) for name in _STANDING]
    query = select(queue.c.attempt, queue.c.task, *columns).outerjoin(source, source.c.attempt == queue.c.source)
    return query.where(queue.c.attempt.in_(bindparam("asked", expanding=True)) & (queue.c.state != "waiting"))


def cancel(connection: Connection, attempt: str, reason: str = "cancelled by its run") -> None:
    """End an attempt that has not ended, and the one that it follows."""
    source = select(queue.c.source).where((queue.c.attempt == attempt) & (queue.c.state == "follows")).scalar_subquery()
    either = (queue.c.attempt == attempt) | (queue.c.attempt == source)
    ended = {"state": "cancelled", "ended": time.time(), "reason": reason}
    connection.execute(update(queue).where(either & queue.c.state.in_(("waiting", "leased"))).values(ended))
    connection.execute(update(queue).where((queue.c.attempt == attempt) & (queue.c.state == "follows")).values(ended))


def is_anything_waiting(connection: Connection) -> bool:
    """Whether some attempt waits for a node."""
    return connection.execute(select(queue.c.attempt).where(queue.c.state == "waiting").limit(1)).first() is not None


def lease(
    connection: Connection,
    member: int,
    name: str,
    methods: Sequence[tuple[str, str]],
    free: int,
    lease_s: float,
    alive_s: float,
    admits: Callable[[Task], bool] = lambda task: True,
) -> list[Queued]:
    """Give up to `free` waiting attempts that it `admits` to a member that has `methods` (name, version), oldest first.

    A node that is to be avoided, by its name, never gets the attempt; one of which a worker is to be avoided only if no
    other live one (heard within `alive_s`) may run it.
    """
    now = time.time()
    others = select(members.c.name).where(
        members.c.revoked.is_(None) & (members.c.role == "node") & (members.c.seen > now - alive_s) & (members.c.id != member)
    )
    rivals: set[str] | None = None
    taken: list[Queued] = []
    first, size = 0, min(free + _SPARE, _PAGE)
    while len(taken) < free:
        asked = {"methods": list(methods), "first": first, "size": size}
        rows = connection.execute(_waiting(), asked).mappings().all()
        for row in rows:
            found = Queued.read(row)
            if name in found.avoid:
                continue
            shunned = {worker.partition("/")[0] for worker in found.avoid}
            if name in shunned:
                rivals = set(connection.execute(others).scalars()) if rivals is None else rivals
                if rivals - shunned:
                    continue
            if not admits(found.task):
                continue
            taken.append(found)
            if len(taken) == free:
                break
        if len(rows) < size:
            break
        first += size
    if taken:
        leased = {"state": "leased", "member": member, "leased": now, "expires": now + lease_s}
        chosen = [found.attempt for found in taken]
        connection.execute(update(queue).where(queue.c.attempt.in_(chosen)).values(leased))
    return taken


@cache
def _waiting() -> Select[Any]:
    """A page of what waits, oldest first; made once, as `_standings`."""
    installed = tuple_(queue.c.method, queue.c.version).in_(bindparam("methods", expanding=True))
    query = select(queue).where((queue.c.state == "waiting") & installed).order_by(queue.c.submitted, queue.c.attempt)
    return query.with_for_update(skip_locked=True).limit(bindparam("size")).offset(bindparam("first"))


def prolong(connection: Connection, member: int, told: Mapping[str, tuple[str, str]], lease_s: float) -> set[str]:
    """Prolong a member's leases, noting worker and progress of each; returns those that it still holds.

    A lease is prolonged up to its deadline and no further; then `expire` takes it back.
    """
    now = time.time()
    held: set[str] = set()
    for attempt, (worker, progress) in told.items():
        mine = (queue.c.attempt == attempt) & (queue.c.member == member) & (queue.c.state == "leased")
        deadline = queue.c.leased + queue.c.deadline_s
        latest = case((deadline < now + lease_s, deadline), else_=now + lease_s)
        changes: dict[str, Any] = {"expires": latest}
        if worker:
            changes |= {"worker": worker, "progress": progress}
        if connection.execute(update(queue).where(mine).values(changes)).rowcount:
            held.add(attempt)
    return held


def held(connection: Connection, member: int) -> list[Needs]:
    """What the tasks need that a member holds now."""
    query = select(queue.c.document).where((queue.c.member == member) & (queue.c.state == "leased"))
    return [Task.model_validate_json(document).needs for document in connection.execute(query).scalars()]


def holds(connection: Connection, member: int, attempt: str) -> Queued | None:
    """The attempt, if this member holds its lease."""
    row = connection.execute(_LEASED, {"held": attempt, "holder": member}).mappings().one_or_none()
    return Queued.read(row) if row is not None else None


def end(connection: Connection, member: int, how: Ended, task: str | None = None) -> bool:
    """End an attempt (at `task`) whose lease the member holds. False where not: too late, a replay, never its own."""
    now = time.time()
    changes = {name: getattr(how, name) for name in Ended.__dataclass_fields__ if name not in ("attempt", "progress")}
    changes |= {"ended": now} | ({"progress": how.progress} if how.progress else {})
    changes |= {"held": how.attempt, "holder": member} | ({} if task is None else {"of_task": task})
    return connection.execute(_END if task is None else _END_OF_TASK, changes).rowcount == 1


def give_back(connection: Connection, member: int, reason: str) -> int:
    """Take back everything that a member holds; returns how many attempts."""
    held = (queue.c.member == member) & (queue.c.state == "leased")
    worker = case((queue.c.worker == "", _node_name()), else_=queue.c.worker)
    ended = {"state": "lost", "ended": time.time(), "reason": reason, "worker": worker}
    return connection.execute(update(queue).where(held).values(ended)).rowcount


def _node_name() -> Any:
    """The name of the member that holds an attempt, as part of a query."""
    return select(members.c.name).where(members.c.id == queue.c.member).scalar_subquery()


def expire(connection: Connection, now: float) -> int:
    """Take back the leases that have run out; returns how many."""
    gone = (queue.c.state == "leased") & (queue.c.expires < now)
    node = _node_name()
    over = now >= queue.c.leased + queue.c.deadline_s
    reason = "node " + node + case((over, " passed the deadline of the attempt"), else_=" has not been heard for its lease")
    worker = case((queue.c.worker == "", node), else_=queue.c.worker)
    ended = {"state": "lost", "ended": now, "reason": reason, "worker": worker}
    return connection.execute(update(queue).where(gone).values(ended)).rowcount


def grant_grace(connection: Connection, until: float) -> None:
    """Let no lease run out before `until`: nodes could not be heard while the gateway was down, or its clock jumped."""
    short = (queue.c.state == "leased") & (queue.c.expires < until)
    deadline = queue.c.leased + queue.c.deadline_s
    latest = case((deadline < until, deadline), else_=until)
    connection.execute(update(queue).where(short).values(expires=latest))


def follow_clock(connection: Connection, jump: float, since: float) -> None:
    """Keep leases as old as they are although the clock was set, by `jump` seconds, at some time after `since`.

    What was leased between `since` and now, by the new time, is left alone.
    """
    old = (queue.c.state == "leased") & ~queue.c.leased.between(since, time.time())
    moved = {"leased": queue.c.leased + jump, "expires": queue.c.expires + jump}
    connection.execute(update(queue).where(old).values(moved))


def drop_orphans(connection: Connection) -> int:
    """Cancel what nobody waits for any more: its reader is gone, or the ledger has given the task to another attempt.

    What a node is already computing goes on: whoever asks for it next takes it over.
    """
    labels = connection.execute(select(queue.c.owner).where(queue.c.state == "waiting").distinct()).scalars()
    gone = [label for label in labels if (owner := Owner.parse(label)) is not None and owner.is_gone()]
    itself = claims.c.id.in_((queue.c.attempt, queue.c.source))
    overtaken = select(claims.c.id).where(itself & (claims.c.state != "running")).exists()
    stale = or_(and_(queue.c.state == "waiting", queue.c.owner.in_(gone)), and_(queue.c.state == "waiting", overtaken))
    ended = {"state": "cancelled", "ended": time.time(), "reason": "nobody waits for it any more"}
    return connection.execute(update(queue).where(stale).values(ended)).rowcount


def proofs(connection: Connection, task_digest: str) -> list[Proof]:
    """Every signed result of a task, with what verifies it."""
    query = (
        select(
            queue.c.attempt, queue.c.task, queue.c.result, members.c.name.label("node"),
            members.c.certificate, queue.c.signature, queue.c.protocol,
        )
        .join(members, members.c.id == queue.c.member)
        .where((queue.c.task == task_digest) & (queue.c.state == "finished"))
        .order_by(queue.c.ended)
    )  # fmt: skip
    return [Proof(**row) for row in connection.execute(query).mappings()]


def count(connection: Connection) -> dict[str, int]:
    """How many attempts there are in each state."""
    query = select(queue.c.state, func.count()).group_by(queue.c.state)
    return {str(state): int(number) for state, number in connection.execute(query)}


class Changes:
    """Tells cheaply whether anybody has written to the ledger since it was last asked.

    On SQLite by ``PRAGMA data_version``, a few microseconds; other databases are taken to have changed each time.
    """

    def __init__(self, database: Database) -> None:
        file = database.engine.url.database if database.engine.dialect.name == "sqlite" else None
        self._connection = sqlite3.connect(str(file), check_same_thread=False, isolation_level=None) if file else None
        self._version: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seen(self) -> bool:
        """Whether something may have changed; true when first asked."""
        if self._connection is None:
            return True
        before, self._version = self._version, self._connection.execute("PRAGMA data_version").fetchone()[0]
        return before != self._version

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
