"""Audits: what was decided on the results of nodes, what came of it, and so each node's record.

One row a result, keyed by the attempt that gave it. Nothing is ever counted up: records are sums over these rows, so
whoever is killed, and however many runs look at the same results, nothing counts twice. Every function works inside a
transaction that the caller has begun (`Database.reading`, `Database.writing`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Integer, cast, func, select, update

from manybody.store.database import Database
from manybody.store.schema import attempts, audits, results, tasks

_BATCH = 500  # computations a query


@dataclass(frozen=True)
class Audit:
    """What was decided on the result of an attempt: by which `node`, and whether it is to be recomputed.

    `verdict` is empty while nothing is known, `agreed` where others found the same, `caught` where it lost; `how` says by
    what it was judged, in which `study`.
    """

    attempt: str
    computation: str
    node: str
    chance: float
    drawn: bool
    verdict: str = ""
    how: str = ""
    study: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Audited:
    """An audit with the result it is about; `withdrawn` says whether that no longer counts, and `refusal` why."""

    audit: Audit
    task: str
    replica: int
    result: str
    worker: str
    inputs: str
    seconds: float
    withdrawn: bool
    refusal: str


@dataclass(frozen=True)
class Standing:
    """A node's record: results, those found right since it was last caught, and results with which it was caught."""

    results: int = 0
    agreed: int = 0
    caught: int = 0


def record(connection: Connection, database: Database, decided: Iterable[Audit]) -> None:
    """Record decisions; the first one on a result stays."""
    now = time.time()
    rows = [vars(each) | {"judged": now if each.verdict else None} for each in decided]
    database.insert_new(connection, audits, rows)


def judge(connection: Connection, attempts_judged: Iterable[str], verdict: str, study: str, how: str, reason: str = "") -> None:
    """Record what came of audits. A fault found stays; an agreement does not stand against one."""
    changes = {"verdict": verdict, "study": study, "how": how, "reason": reason, "judged": time.time()}
    for attempt in attempts_judged:
        open_ones = (audits.c.attempt == attempt) & (audits.c.verdict.not_in(["caught", verdict]))
        connection.execute(update(audits).where(open_ones).values(changes))


def pardon(connection: Connection, attempt: str, reason: str) -> None:
    """Take a verdict back: the fault was not the node's."""
    changes = {"verdict": "", "reason": reason, "judged": None}
    connection.execute(update(audits).where(audits.c.attempt == attempt).values(changes))


def caught(connection: Connection, study: str) -> set[str]:
    """The nodes that were caught in a study."""
    wanted = select(audits.c.node).where((audits.c.study == study) & (audits.c.verdict == "caught"))
    return set(connection.execute(wanted.distinct()).scalars())


def standings(connection: Connection) -> dict[str, Standing]:
    """The record of every node, over all studies."""
    last = select(audits.c.node, func.max(audits.c.judged).label("last")).where(audits.c.verdict == "caught")
    fall = last.group_by(audits.c.node).subquery()
    is_caught = cast(audits.c.verdict == "caught", Integer)
    since = (audits.c.verdict == "agreed") & (audits.c.judged > func.coalesce(fall.c.last, 0.0))
    query = select(audits.c.node, func.count(), func.sum(cast(since, Integer)), func.sum(is_caught))
    found = connection.execute(query.outerjoin(fall, fall.c.node == audits.c.node).group_by(audits.c.node))
    return {node: Standing(number, agreed or 0, times or 0) for node, number, agreed, times in found}


def decided(connection: Connection, attempt: str) -> Audit | None:
    """What was decided on the result of an attempt, if anything was."""
    columns = [audits.c[name] for name in Audit.__dataclass_fields__]
    row = connection.execute(select(*columns).where(audits.c.attempt == attempt)).mappings().one_or_none()
    return Audit(**row) if row else None


def of(connection: Connection, computations: Sequence[str]) -> list[Audited]:
    """Every audited result of some computations, those that no longer count too, in the order in which they came."""
    columns = [audits.c[name] for name in Audit.__dataclass_fields__]
    query = (
        select(
            *columns, results.c.task, tasks.c.document, results.c.digest, results.c.worker, results.c.inputs,
            results.c.seconds, results.c.withdrawn, results.c.reason.label("refusal"), results.c.id,
        )
        .join(attempts, attempts.c.id == audits.c.attempt)
        .join(results, results.c.attempt == audits.c.attempt)
        .join(tasks, tasks.c.digest == results.c.task)
    )  # fmt: skip
    found: list[tuple[int, Audited]] = []
    left = iter(computations)
    while batch := list(islice(left, _BATCH)):
        rows = connection.execute(query.where(audits.c.computation.in_(batch))).mappings()
        found += [(row["id"], _audited(dict(row))) for row in rows]
    return [audited for _, audited in sorted(found, key=lambda pair: pair[0])]


def _audited(row: dict[str, Any]) -> Audited:
    audit = Audit(**{name: row[name] for name in Audit.__dataclass_fields__})
    replica = int(json.loads(row["document"])["replica"])
    return Audited(
        audit, row["task"], replica, row["digest"], row["worker"], row["inputs"], row["seconds"],
        row["withdrawn"] is not None, row["refusal"],
    )  # fmt: skip
