"""Who has joined the federation, and who may: members by the fingerprint of their certificate, invitations by secret.

Every function works inside a transaction that the caller has begun (`Database.reading`, `Database.writing`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, RowMapping, bindparam, func, select, update

from manybody.core.errors import InputError, Problem
from manybody.core.task import Task
from manybody.store.queue import give_back
from manybody.store.schema import invitations, members, queue

Role = Literal["node", "client"]
_SECRET_BYTES = 24  # 192 random bits: not to be guessed at any rate of asking
_UNFIT = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True)
class Member:
    """A machine that has joined: `report` is what it told of itself as JSON, `revoked` the time it was shut out.

    `load` counts the tasks that run on its processors or want to, as it last told.
    """

    id: int
    name: str
    role: Role
    fingerprint: str
    certificate: str
    joined: float
    seen: float | None
    report: str
    load: float | None
    revoked: float | None
    reason: str

    @classmethod
    def read(cls, row: RowMapping) -> Member:
        """From a row of members."""
        return cls(**row)


@dataclass(frozen=True)
class Record:
    """How a member has done so far: attempts by how they ended."""

    finished: int = 0
    failed: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Holding:
    """A task that a member holds: its label, when it was leased, on which worker it runs, and which fraction is behind it."""

    task: str
    leased: float
    worker: str
    fraction: float | None


def find(connection: Connection, fingerprint: str) -> Member | None:
    """The member with this certificate, revoked ones too."""
    row = connection.execute(select(members).where(members.c.fingerprint == fingerprint)).mappings().one_or_none()
    return Member.read(row) if row is not None else None


def everyone(connection: Connection) -> list[Member]:
    """All members in the order in which they joined."""
    return [Member.read(row) for row in connection.execute(select(members).order_by(members.c.id)).mappings()]


def named(connection: Connection, name: str) -> Member:
    """The member of this name; an unknown one raises `InputError`."""
    row = connection.execute(select(members).where(members.c.name == name)).mappings().one_or_none()
    if row is None:
        known = ", ".join(connection.execute(select(members.c.name)).scalars()) or "none has joined"
        raise InputError(Problem("node", "the name of a member", f"`{name}`", f"Known: {known}. See `manybody nodes`."))
    return Member.read(row)


def revoked_fingerprints(connection: Connection) -> set[str]:
    """The certificates that count no more."""
    return set(connection.execute(select(members.c.fingerprint).where(members.c.revoked.is_not(None))).scalars())


def invite(connection: Connection, role: Role, valid_s: float) -> str:
    """Make an invitation that one member may use within `valid_s` seconds; returns its token, kept nowhere else."""
    number, secret, now = secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES), time.time()
    row = {"id": number, "secret": _hashed(secret), "role": role, "created": now, "expires": now + valid_s}
    connection.execute(invitations.insert().values(row))
    return f"{number}.{secret}"


def redeem(connection: Connection, token: str) -> Role | None:
    """Use an invitation up: its role; None where it is unknown, expired or used. Of several that try, one gets it."""
    number, _, secret = token.partition(".")
    row = connection.execute(select(invitations).where(invitations.c.id == number)).mappings().one_or_none()
    known = row["secret"] if row is not None else _hashed("")  # compare in any case: an unknown one takes as long
    if not hmac.compare_digest(known, _hashed(secret)) or row is None or row["expires"] < time.time():
        return None
    unused = (invitations.c.id == number) & invitations.c.used.is_(None)
    taken = connection.execute(update(invitations).where(unused).values(used=time.time())).rowcount == 1
    return row["role"] if taken else None


def free_name(connection: Connection, wanted: str) -> str:
    """A name of lower-case letters, digits and hyphens that nobody has, close to the one that is wanted."""
    base = _UNFIT.sub("-", wanted.lower()).strip("-")[:48] or "node"
    taken = set(connection.execute(select(members.c.name).where(members.c.name.startswith(base, autoescape=True))).scalars())
    return next(name for number in range(1, len(taken) + 2) if (name := base if number == 1 else f"{base}-{number}") not in taken)


def admit(connection: Connection, name: str, role: Role, fingerprint: str, certificate: str) -> None:
    """Record a new member."""
    row = {"name": name, "role": role, "fingerprint": fingerprint, "certificate": certificate, "joined": time.time()}
    connection.execute(members.insert().values(row))


def describe(connection: Connection, member: int, report: str) -> None:
    """Keep what a member told of itself."""
    connection.execute(update(members).where(members.c.id == member).values(report=report, seen=time.time()))


_HEARD = update(members).where(members.c.id == bindparam("heard"))


def greet(connection: Connection, member: int, now: float, load: float | None = None) -> None:
    """Note that a member has just been heard, and its load where it told it."""
    told = {"seen": now} | ({} if load is None else {"load": load})
    connection.execute(_HEARD, told | {"heard": member})


def shut_out(connection: Connection, member: int, reason: str) -> int:
    """Let a member's certificate count no more and take back what it had leased; returns how many attempts."""
    now = time.time()
    connection.execute(
        update(members).where((members.c.id == member) & members.c.revoked.is_(None)).values(revoked=now, reason=reason)
    )
    return give_back(connection, member, reason)


def records(connection: Connection) -> dict[int, Record]:
    """How each member has done, by its id."""
    counts = select(queue.c.member, queue.c.state, func.count()).where(queue.c.member.is_not(None))
    found: dict[int, dict[str, int]] = {}
    for member, state, number in connection.execute(counts.group_by(queue.c.member, queue.c.state)):
        found.setdefault(member, {})[state] = number
    return {
        member: Record(states.get("finished", 0), states.get("failed", 0), states.get("lost", 0))
        for member, states in found.items()
    }


def holdings(connection: Connection, member: int) -> list[Holding]:
    """What a member holds now, the oldest first."""
    held = (queue.c.state == "leased") & (queue.c.member == member)
    query = select(queue.c.document, queue.c.leased, queue.c.worker, queue.c.progress).where(held).order_by(queue.c.leased)
    return [
        Holding(Task.model_validate_json(row.document).label, row.leased, row.worker, _fraction(row.progress))
        for row in connection.execute(query)
    ]


def _fraction(progress: str) -> float | None:
    return float(json.loads(progress)["fraction"]) if progress else None


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
