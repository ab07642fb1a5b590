"""What finished tasks took, and what runs since when, as the ledger knows it. Inside a transaction of the caller's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Connection, select, tuple_

from manybody.store.schema import attempts, provenances, results, tasks

ENOUGH = 500  # of each kind: the newest tell most, and medians of more do not change


@dataclass(frozen=True)
class TimingRow:
    """A finished task: method, stage, version, predicted cost (core-seconds), seconds, its worker, and the run's host."""

    method: str
    stage: str
    version: str
    cost: float
    seconds: float
    worker: str
    host: str


def newest_timings(connection: Connection, kinds: Iterable[tuple[str, str, str]], limit: int = ENOUGH) -> list[TimingRow]:
    """The newest results of each kind of task (method, stage, version), up to `limit` of each, withdrawn ones too."""
    columns = (tasks.c.method, tasks.c.stage, tasks.c.version, tasks.c.cost, results.c.seconds, results.c.worker)
    query = select(*columns, provenances.c.document).join(results, results.c.task == tasks.c.digest).join(provenances)
    found: list[TimingRow] = []
    for kind in sorted(set(kinds)):
        of_kind = query.where(tuple_(tasks.c.method, tasks.c.stage, tasks.c.version) == kind)
        rows = connection.execute(of_kind.order_by(results.c.id.desc()).limit(limit))
        found += [TimingRow(*row[:-1], _host(row[-1])) for row in rows]
    return found


@dataclass(frozen=True)
class RunningRow:
    """A task that a run computes now: its label, the number of the run, and when the attempt began."""

    label: str
    run: int
    started: float


def running(connection: Connection, runs: Iterable[int]) -> list[RunningRow]:
    """What these runs compute now, the oldest first."""
    query = select(tasks.c.method, tasks.c.stage, tasks.c.digest, attempts.c.run, attempts.c.started)
    query = query.join(attempts, attempts.c.task == tasks.c.digest)
    current = query.where((attempts.c.state == "running") & attempts.c.run.in_(list(runs))).order_by(attempts.c.started)
    return [RunningRow(f"{row.method}/{row.stage} {row.digest[:8]}", row.run, row.started) for row in connection.execute(current)]


@lru_cache(maxsize=256)
def _host(document: str) -> str:
    return str(json.loads(document).get("host", ""))
