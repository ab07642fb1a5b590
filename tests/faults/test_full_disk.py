"""A full disk: said with what is needed and what to do; nothing half-written, nothing lost, and on it goes with space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manybody.testing.methods import installed

MEGABYTES = 8
SCRIPT = Path(__file__).with_name("full_disk.py")
Case = Callable[[str], dict[str, Any]]


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Case:
    """Runs a case of the script on a small disk that only its process sees (a mount namespace), gone when it ends."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={MEGABYTES}m tmpfs "$MANYBODY_HOME"'
    environment = os.environ | installed(tmp_path / "plugin") | {"MANYBODY_HOME": str(disk)}

    def inside(command: str) -> subprocess.CompletedProcess[str]:
        try:
            arguments = ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount} && {command}"]
            return subprocess.run(arguments, env=environment, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no `unshare` on this system to mount a small disk with")

    if (tried := inside("true")).returncode != 0:
        pytest.skip(f"this system lets nobody mount a small disk: {tried.stderr.strip()}")

    def run(case: str) -> dict[str, Any]:
        told = inside(f'exec "{sys.executable}" "{SCRIPT}" {case}')
        assert told.returncode == 0, told.stderr
        return dict(json.loads(told.stdout))

    return run


def test_a_result_that_does_not_fit_leaves_nothing_and_harms_nothing(on_small_disk: Case) -> None:
    told = on_small_disk("store")
    for words in ("is full", "6000112 bytes are needed", "are free", "MANYBODY_HOME"):
        assert words in told["said"]
    assert told["half_written"] == []
    assert told["intact"] == [1_000_000, 1_000_000, 1_000_000, 500_000]


@pytest.mark.fault(
    "a full disk",
    on="all",
    happens="the ledger refuses what does not fit, and says what to do",
    kept="every transaction is whole or not there",
)
def test_the_ledger_takes_all_of_a_transaction_or_none_and_goes_on_when_there_is_space(on_small_disk: Case) -> None:
    told = on_small_disk("ledger")
    for words in ("database or disk is full", "Free some space", "MANYBODY_HOME"):
        assert words in told["said"]
    assert told["during"] == 40
    assert told["finished"] is True
    assert told["states"] == ["done"] + ["mine"] * 39
    assert told["sound"] == "ok"


@pytest.mark.fault(
    "a full disk",
    on="embedded",
    happens="the task fails with the reason; its worker goes on",
    kept="every earlier result",
)
def test_a_task_whose_result_does_not_fit_fails_and_its_worker_goes_on(on_small_disk: Case) -> None:
    told = on_small_disk("backend")
    assert told["kinds"] == {"too big": "failed", "small": "finished"}
    assert "is full" in told["said"]
    assert "Free some space" in told["said"]
