"""Home: the folder where the ledger and the results are kept."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from platformdirs import user_data_dir

from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore


class Home:
    """The folder `path`; by default ``MANYBODY_HOME``, else the platform's folder for a user's data."""

    def __init__(self, path: Path | None = None) -> None:
        chosen = path or os.environ.get("MANYBODY_HOME") or user_data_dir("manybody")
        self.path = Path(chosen).expanduser().absolute()

    def ledger(self) -> Ledger:
        """The ledger, opened; made if there is none yet."""
        return Ledger(self.path / "ledger.sqlite")

    @cached_property
    def objects(self) -> ObjectStore:
        """The results."""
        return ObjectStore(self.path / "objects")
