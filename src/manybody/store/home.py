"""Home: the folder where the results are kept, and the ledger too unless it is on a server."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from platformdirs import user_data_dir

from manybody.core.errors import StoreError
from manybody.core.random import Key
from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore


class Home:
    """The folder `path`; by default ``MANYBODY_HOME``, else the platform's folder for a user's data."""

    def __init__(self, path: Path | None = None) -> None:
        chosen = path or os.environ.get("MANYBODY_HOME") or user_data_dir("manybody")
        self.path = Path(chosen).expanduser().absolute()

    @property
    def ledger_address(self) -> str | Path:
        """Where the ledger is: the URL in ``MANYBODY_LEDGER`` or in the file `ledger.url`, else the file `ledger.sqlite`."""
        told = os.environ.get("MANYBODY_LEDGER", "").strip()
        file = self.path / "ledger.url"
        if not told and file.is_file():
            told = file.read_text(encoding="utf-8").strip()
            if not told:
                raise StoreError(f"Expected the ledger's URL in {file}; it is empty. Write one, or remove the file.")
        return told or self.path / "ledger.sqlite"

    def ledger(self) -> Ledger:
        """The ledger, opened; made if there is none yet."""
        return Ledger(self.ledger_address)

    @cached_property
    def secret(self) -> Key:
        """What only this home knows: from it follows whose results are recomputed. Made when first asked for."""
        path = self.path / "secret.key"
        if not path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            fresh = self.path / f"secret.key.{secrets.token_hex(8)}"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(16))
            with suppress(FileExistsError):  # another process was first: its secret counts
                os.link(fresh, path)
            fresh.unlink()
        text = path.read_text(encoding="ascii").strip()
        if re.fullmatch("[0-9a-f]{32}", text) is None:
            remedy = "Remove the file; a new one is made, and what is drawn from now on follows from that."
            raise StoreError(f"Expected 32 hexadecimal digits in {path}; got something else. {remedy}")
        return Key(int(text, 16))

    @cached_property
    def objects(self) -> ObjectStore:
        """The results."""
        return ObjectStore(self.path / "objects")
