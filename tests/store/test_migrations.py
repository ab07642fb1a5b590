"""Schemas: made by migrations alone, upgraded once, refused when newer, and what broken files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from manybody.core.errors import StoreError
from manybody.store import migrations
from manybody.store.ledger import Ledger
from manybody.store.schema import HEAD, metadata
from manybody.testing.postgres import PostgresServer

PARTIAL = {"one_current_attempt", "one_current_result"}  # partial indices, which alembic's comparison does not see


def opened_at_once(address: str) -> list[tuple[int, str]]:
    """How three processes fare that open a ledger at the same time: status and last words of each."""
    code = "import sys; from manybody.store.ledger import Ledger; print('ready', flush=True); input(); Ledger(sys.argv[1])"
    arguments = [sys.executable, "-c", code, address]
    several = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in several:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in several:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate()[1] for process in several]
    return [(process.returncode, words) for process, words in zip(several, told, strict=True)]


def test_migrations_make_exactly_the_schema_that_the_code_uses(ledger: Ledger) -> None:
    with ledger.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        indices = set(connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql LIKE '% WHERE %'")).scalars())
    assert indices == PARTIAL


def test_migrations_make_the_same_schema_on_postgresql_once_however_many_processes_open_it(server: PostgresServer) -> None:
    address = server.empty()
    assert [code for code, _ in opened_at_once(address)] == [0] * 3
    ledger = Ledger(address)
    with ledger.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        indices = set(connection.execute(text("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '% WHERE %'")).scalars())
        assert indices == PARTIAL
        settings = ("fsync", "synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_isolation")
        told = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in settings]
    assert told == ["on", "on", "30s", "30s", "repeatable read"]
    ledger.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://nobody@/ledger?host=/nowhere", "ledger.*the server runs.*MANYBODY_LEDGER"),
        ("mysql://host/ledger", "Expected the ledger's address.*mysql.*MANYBODY_LEDGER"),
        ("postgresql://host:port/ledger", "Expected the ledger's address.*MANYBODY_LEDGER"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(address: str, words: str) -> None:
    with pytest.raises(StoreError, match=f"(?s){words}"):
        Ledger(address)


def test_no_password_is_told() -> None:
    with pytest.raises(StoreError) as caught:
        Ledger("postgresql://me:sesame@/ledger?host=/nowhere")
    assert "me:***" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_the_newest_migration_is_the_one_that_the_code_names() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [HEAD]


def test_a_ledger_lasts_through_power_cuts_and_writers_take_turns(ledger: Ledger) -> None:
    with ledger.database.reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2: FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_what_means_nothing_after_a_power_cut_is_not_waited_for(ledger: Ledger) -> None:
    """SQLite's levels: 1 (NORMAL) keeps a file consistent, 2 (FULL) also waits for the disk at each commit."""
    levels = []
    for lasting in (False, True):
        with ledger.database.writing(lasting) as connection:
            levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
    assert levels == [1, 2]


def test_opening_what_is_up_to_date_does_not_import_alembic(ledger: Ledger, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from manybody.store.ledger import Ledger; Ledger(pathlib.Path(sys.argv[1])).close();"
        "print([name for name in ('alembic', 'torch', 'numba') if name in sys.modules])"
    )
    path = str(tmp_path / "ledger.sqlite")
    told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_newer_schema_is_refused_with_a_remedy(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=f"expected schema version {HEAD} or older; got 9999.*Upgrade"):
        Ledger(tmp_path / "ledger.sqlite")


def test_many_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    told = opened_at_once(str(tmp_path / "new" / "ledger.sqlite"))
    assert [code for code, _ in told] == [0] * 3, told


@pytest.mark.parametrize(("content", "words"), [(b"no database" * 100, "not a database"), (None, "unable to open")])
def test_a_file_that_is_no_ledger_says_so(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "ledger.sqlite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=words) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="MANYBODY_HOME"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
