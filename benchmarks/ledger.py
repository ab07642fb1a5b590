"""Tasks claimed and finished a second through the ledger, on SQLite and on PostgreSQL, by one coordinator and by two.

Both are durable: each finish is a transaction that reaches the disk before it returns, and on PostgreSQL each claim, too
(a power cut that undoes one in an SQLite file ends its process as well). The peer is the least that a durable ledger could
do on the same database: one row inserted and one updated a task, each committed, and waited for as ours.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from benchmarks.measure import Result, compare
from manybody.core.study import Study
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.testing.postgres import installed_programs, running

NAME = "ledger"
DESCRIPTION = "tasks claimed and finished a second, on SQLite and PostgreSQL, by one and by two coordinators"

TASKS = 100  # a round and coordinator
ROUNDS = 3
TARGET = 0.0  # none is set: the figures are for choosing a database
UNIT = "tasks per second"
STUDY = Study.model_validate(
    {
        "name": "ledger",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
VERSIONS = {"python": "3"}


def run(json: bool = False) -> list[Result]:
    """Each database that is installed, by one coordinator and by two."""
    with tempfile.TemporaryDirectory() as folder:
        results = measured("sqlite", str(Path(folder) / "ledger.sqlite"), plain_sqlite(Path(folder) / "plain.sqlite"))
    programs = installed_programs()
    if programs is not None:
        with running(programs) as server:
            results += measured("postgresql", server.ledger(), plain_postgresql(server.empty()))
    elif not json:
        print("PostgreSQL is not installed: only SQLite was measured.", file=sys.stderr)
    return results


def measured(kind: str, where: str, plain: tuple[Callable[[], float], str]) -> list[Result]:
    """One database."""
    peer, peer_version = plain
    with coordinators(where, 2) as two:
        return [
            compare(f"ledger-{kind}", UNIT, TARGET, lambda: rate(where), peer, peer_version, ROUNDS),
            compare(f"ledger-{kind}-two-coordinators", UNIT, TARGET, two, peer, peer_version, ROUNDS),
        ]


def rate(where: str) -> float:
    """Tasks a second of one coordinator, on tasks that nobody has yet."""
    with contextlib.closing(Ledger(where)) as ledger:
        ledger.record_study(STUDY)
        number = ledger.begin_run(STUDY.digest, Path("out"), "benchmark", VERSIONS)
        parameters = [{"round": secrets.token_hex(8), "n": n} for n in range(TASKS)]
        tasks = [Task(method="m", stage="s", version="1", system={}, parameters=each) for each in parameters]
        ledger.add_tasks(number, tasks)
        begin = time.perf_counter()
        for task in tasks:
            claim = ledger.claim(number, task.digest)
            ledger.finish(claim.attempt, "f" * 64, 1, 1.0, "w", VERSIONS)
        seconds = time.perf_counter() - begin
        ledger.end_run(number, "holds", None, None)
    return TASKS / seconds


@contextlib.contextmanager
def coordinators(where: str, count: int) -> Iterator[Callable[[], float]]:
    """A function that lets processes of their own work at once, and gives the sum of their rates."""
    code = "import sys; from benchmarks.ledger import rate\nfor line in sys.stdin: print(rate(line.strip()), flush=True)"
    with contextlib.ExitStack() as opened:
        several = [
            opened.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(count)
        ]

        def together() -> float:
            for process in several:
                assert process.stdin is not None
                process.stdin.write(f"{where}\n")
                process.stdin.flush()
            return sum(float(process.stdout.readline()) for process in several if process.stdout is not None)

        yield together
        for process in several:
            assert process.stdin is not None
            process.stdin.close()


def plain_sqlite(path: Path) -> tuple[Callable[[], float], str]:
    """Two bare transactions a task on SQLite, and its version."""

    def once() -> float:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, state TEXT)")

            def execute(text: str, row: tuple[str, ...]) -> object:
                connection.execute(f"PRAGMA synchronous = {'NORMAL' if text.startswith('INSERT') else 'FULL'}")
                return connection.execute(text, row)

            return _pairs(execute, "?")

    return once, sqlite3.sqlite_version


def plain_postgresql(url: str) -> tuple[Callable[[], float], str]:
    """Two bare transactions a task on PostgreSQL, and the version of its driver."""
    address = make_url(url)
    folder, user = str(address.query["host"]), address.username

    def once() -> float:
        with psycopg.connect(host=folder, user=user, dbname=address.database, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, state TEXT)")
            return _pairs(lambda text, row: connection.execute(text.encode(), row), "%s")

    return once, f"psycopg {version('psycopg')}"


def _pairs(execute: Callable[[str, tuple[str, ...]], object], mark: str) -> float:
    """Tasks a second, each one insert and one update."""
    begin = time.perf_counter()
    for _ in range(TASKS):
        name = secrets.token_hex(16)
        execute(f"INSERT INTO rows VALUES ({mark}, 'running')", (name,))
        execute(f"UPDATE rows SET state = 'finished' WHERE id = {mark}", (name,))
    return TASKS / (time.perf_counter() - begin)
