"""Where things are kept, and with what they were made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from manybody.core.errors import StoreError
from manybody.store.home import Home
from manybody.store.provenance import provenance


def test_home_is_where_one_says_else_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYBODY_HOME", str(tmp_path / "there"))
    assert Home().path == tmp_path / "there"
    assert Home(tmp_path / "here").path == tmp_path / "here"
    monkeypatch.delenv("MANYBODY_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Home().path.name == "manybody"


def test_home_makes_its_ledger_and_its_store_below_itself(tmp_path: Path) -> None:
    home = Home(tmp_path / "new" / "home")
    home.ledger().close()
    assert home.objects is home.objects
    assert {path.name for path in home.path.iterdir()} >= {"ledger.sqlite", "objects"}


def test_the_ledger_is_a_file_at_home_unless_a_url_is_given_there_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MANYBODY_LEDGER", raising=False)
    home = Home(tmp_path)
    assert home.ledger_address == tmp_path / "ledger.sqlite"
    (tmp_path / "ledger.url").write_text(f"sqlite:///{tmp_path}/elsewhere.sqlite\n")
    home.ledger().close()
    assert (tmp_path / "elsewhere.sqlite").exists()
    monkeypatch.setenv("MANYBODY_LEDGER", "postgresql://lab/ledger")
    assert home.ledger_address == "postgresql://lab/ledger"
    monkeypatch.delenv("MANYBODY_LEDGER")
    (tmp_path / "ledger.url").write_text("\n")
    with pytest.raises(StoreError, match=r"ledger\.url.*empty"):
        home.ledger()


def test_provenance_names_versions_and_machine() -> None:
    told = provenance()
    assert told["python"] == platform.python_version()
    assert told["numpy"] == version("numpy")
    assert told["host"] == platform.node()
    assert isinstance(told["cores"], int)
    assert 1 <= told["cores"] <= (os.cpu_count() or 1)
    assert set(told) == {"python", "manybody", "numpy", "numba", "torch", "host", "platform", "cpu", "cores"}
    assert all(told.values())


def test_provenance_imports_nothing_that_it_names() -> None:
    code = (
        "import sys; from manybody.store.provenance import provenance; provenance(); print({'numba', 'torch'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
