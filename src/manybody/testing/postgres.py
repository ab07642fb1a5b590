"""A PostgreSQL server of one's own, for tests and benchmarks: on a Unix socket in a temporary folder, as durable as any.

The programs come from the system's package (``apt-get install postgresql``). The server refuses to run as root, so for
root it runs as the user ``postgres`` that the package makes.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from manybody.store.ledger import Ledger

PACKAGED = Path("/usr/lib/postgresql")  # where Debian's packages put the programs, by version
USER = "postgres"
PATIENCE_S = 60  # for a loaded machine; half a second otherwise
_TEMPLATE = "template_ledger"


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `folder` holds its socket."""

    folder: Path

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}"

    def empty(self) -> str:
        """The address of a new, empty database."""
        return self._create("template1")

    def ledger(self) -> str:
        """The address of a new database with an empty ledger in it."""
        return self._create(_TEMPLATE)

    def _create(self, template: str) -> str:
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(host=str(self.folder), user=USER, dbname="postgres", autocommit=True) as connection:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)


def installed_programs() -> Path | None:
    """The folder with ``initdb`` and ``pg_ctl``, the newest where there are several; None where there is none."""
    found = shutil.which("pg_ctl")
    if found and Path(found).resolve().with_name("initdb").exists():
        return Path(found).resolve().parent
    versions = sorted(PACKAGED.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def running(programs: Path) -> Iterator[PostgresServer]:
    """A new server, until the block is left; then it and all it held is gone."""
    user = USER if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short, and reachable for its user
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        data = folder / "data"
        act = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, user=user, group=user, cwd=folder)
        act([programs / "initdb", "-D", data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C"])
        options = f"-k {folder} -c listen_addresses= -c fsync=on"
        control = [programs / "pg_ctl", "-D", data, "-t", str(PATIENCE_S), "-w"]
        with _said_in(folder / "log"):
            act([*control, "-l", folder / "log", "-o", options, "start"])
        try:
            server = PostgresServer(folder)
            _prepare(server)
            yield server
        finally:
            act([*control, "-m", "immediate", "stop"])  # no need to write out what is thrown away
    finally:
        shutil.rmtree(folder)


@contextmanager
def _said_in(log: Path) -> Iterator[None]:
    """Add what the server said to the error of a program that controls it."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        error.add_note(log.read_text(errors="replace") if log.exists() else "The server said nothing.")
        raise


def _prepare(server: PostgresServer) -> None:
    """Make the ledger that the others are copied from: a copy takes less than the migrations."""
    with psycopg.connect(host=str(server.folder), user=USER, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    with closing(Ledger(server.url(_TEMPLATE))):
        pass
