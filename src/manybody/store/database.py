"""The database under the ledger: opened durably, migrated when behind, its errors in plain words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.schema import Table

from manybody.core.errors import StoreError
from manybody.store.schema import HEAD

BUSY_TIMEOUT_S = 30  # how long to wait for another writer; each transaction takes milliseconds
CONNECT_TIMEOUT_S = 10
_WRITES = "manybody_writes"  # execution option of connections that will write: SQLite's level of synchronisation
_MIGRATING = 0x6D616E79  # the PostgreSQL advisory lock under which one process at a time migrates: "many"

_EXPECTED_URL = "Expected the ledger's address as a URL such as postgresql://user@host/database"
_SET_URL = "Correct MANYBODY_LEDGER, or the file `ledger.url` in MANYBODY_HOME."


class Database:
    """Transactions on a database by URL, or on an SQLite file by path. Use from any thread, not across a fork."""

    def __init__(self, where: str | Path) -> None:
        url = _url(where)
        self.name = url.render_as_string(hide_password=True)
        self.engine = _engine(url)
        self._migrate()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the database."""
        # What each server calls a view that no other's commit changes; SQLite gives nothing else.
        view = {} if self.is_file else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._explained(), self.engine.connect().execution_options(**view) as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, lasting: bool = True) -> Iterator[Connection]:
        """One transaction: all of it lasts once the block is left, none of it when it raises.

        Where it need not be `lasting`, an SQLite file is not waited for: everybody sees what was written, whoever is
        killed, but a power cut may undo the last of it, until another transaction lasts. For what means nothing once
        all processes of the machine are gone.
        """
        options = {_WRITES: "FULL" if lasting else "NORMAL"}
        with self._explained(), self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def insert_new(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Insert the rows whose keys are not there yet."""
        if rows:
            insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
            connection.execute(insert(table).on_conflict_do_nothing(), rows)

    @property
    def is_file(self) -> bool:
        """Whether this is an SQLite file, and so of one machine."""
        return self.engine.dialect.name == "sqlite"

    def now(self, connection: Connection) -> float:
        """Seconds since 1970 by one clock for all who share the database: the server's where there is one."""
        if self.is_file:
            return time.time()
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def complaint(self) -> str:
        """What the database itself finds wrong with it; empty when it is sound. A server checks its pages as it reads."""
        with self.reading() as connection:
            said = str(connection.exec_driver_sql("PRAGMA quick_check" if self.is_file else "SELECT 'ok'").scalar())
        return "" if said == "ok" else said

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _migrate(self) -> None:
        with self.reading() as connection:
            if _version(connection, self.name) == HEAD:
                return
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            if _version(connection, self.name) != HEAD:  # another process may have migrated meanwhile
                from manybody.store.migrations import upgrade  # alembic takes long to import and is rarely needed

                upgrade(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a driver's error into a `StoreError` that says what to do."""
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"The ledger {self.name}: {error.orig}. {_remedy(str(error.orig))}") from error


def _url(where: str | Path) -> URL:
    """The address of a database: a URL as it is given, or that of the SQLite file at a path, its folder made."""
    if not (isinstance(where, str) and "://" in where):
        return make_url("sqlite://").set(database=str(_in_folder(Path(where).absolute())))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise StoreError(f"{_EXPECTED_URL}; got one that cannot be read. {_SET_URL}") from None  # it may hold a password
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _engine(url: URL) -> Engine:
    """Connections to a database, set up so that what is committed lasts and nobody waits for ever."""
    kind = url.get_backend_name()
    if kind == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
        _make_durable(engine)
        return engine
    if kind != "postgresql":
        raise StoreError(f"{_EXPECTED_URL}; got one of `{url.drivername}`. {_SET_URL}")
    try:
        # A coordinator that is frozen inside a transaction must not keep the others waiting for ever.
        limits = f"-c lock_timeout={BUSY_TIMEOUT_S}s -c idle_in_transaction_session_timeout={BUSY_TIMEOUT_S}s"
        durable = "-c synchronous_commit=on"
        arguments = {"options": f"{limits} {durable}", "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "manybody"}
        return create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(f"PostgreSQL needs a driver: {error}. Install it with `pip install 'manybody[postgres]'`.") from error


def _in_folder(path: Path) -> Path:
    """`path`, its folder made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "Set MANYBODY_HOME to a folder that may be written."
        raise StoreError(f"The ledger {path}: its folder cannot be made: {error}. {remedy}") from error
    return path


def _remedy(message: str) -> str:
    """What to do about a driver's message.

    Sources of the texts: https://www.sqlite.org/rescode.html, https://www.postgresql.org/docs/15/errcodes-appendix.html
    """
    if "connection" in message or "authentication" in message or "does not exist" in message:
        remedy = f"Check that the server runs and knows this user and database. {_SET_URL}"
    elif "full" in message or "No space left" in message:
        remedy = "Nothing half-written was kept. Free some space, or set MANYBODY_HOME to a folder on a larger disk."
    elif "locked" in message or "lock timeout" in message:
        remedy = f"Another process has held it for {BUSY_TIMEOUT_S} s: end that one, then run again."
    elif "malformed" in message or "not a database" in message:
        remedy = "Move it away to start anew: results stay in the object store, but will be computed again."
    elif "unable to open" in message or "readonly" in message:
        remedy = "Check that its folder exists and may be written, or set MANYBODY_HOME to another."
    else:
        remedy = "Run `manybody doctor` to see where it is kept."
    return remedy


def _version(connection: Connection, name: str) -> str:
    """The schema's version, empty for a new database. A newer one than this code knows raises `StoreError`."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    version = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none() or "")
    if version > HEAD:
        expected = f"expected schema version {HEAD} or older; got {version}, written by a newer Manybody"
        raise StoreError(f"The ledger {name}: {expected}. Upgrade with `pip install --upgrade manybody`, or set MANYBODY_HOME.")
    return version


def _make_durable(engine: Engine) -> None:
    """Write-ahead log, a sync on every commit, foreign keys; transactions begun by us, at once where they write."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions of its own
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes could find its view outdated; IMMEDIATE waits its turn instead.
        level = connection.get_execution_options().get(_WRITES)
        if level:
            connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if level else "BEGIN")
