"""Migrations of the ledger, run by alembic when a ledger of an older version is opened. Imported only then."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema behind `connection` up to `revision`, inside the transaction it is in."""
    config = Config()
    config.set_main_option("script_location", "manybody.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
