"""Content-addressed results on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manybody.core.digest import digest_bytes
from manybody.core.errors import CorruptResultError, StoreError, TaskError
from manybody.core.task import Output
from manybody.store.liveness import Owner
from manybody.store.objects import ObjectStore

OUTPUT = Output({"energy": np.linspace(-5, -4, 50)}, {"title": "Flüssigkeit", "steps": 100})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def files(store: ObjectStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_result_is_named_by_its_bytes_and_comes_back(store: ObjectStore) -> None:
    stored = store.put(OUTPUT)
    assert store.path(stored.digest).stat().st_size == stored.nbytes
    assert digest_bytes(store.path(stored.digest).read_bytes()) == stored.digest
    assert store.has(stored.digest)
    back = store.get(stored.digest)
    assert back.document == OUTPUT.document
    assert np.array_equal(back.arrays["energy"], OUTPUT.arrays["energy"])


def test_the_same_output_is_kept_once_whichever_process_writes_it(store: ObjectStore) -> None:
    digest = store.put(OUTPUT).digest
    code = (
        "import sys, pathlib, numpy; from manybody.core.task import Output; from manybody.store.objects import ObjectStore;"
        "output = Output({'energy': numpy.linspace(-5, -4, 50)}, {'steps': 100, 'title': 'Flüssigkeit'});"
        "print(ObjectStore(pathlib.Path(sys.argv[1])).put(output).digest)"
    )
    for seed in ("1", "2"):  # of Python's string hashes
        told = subprocess.run(
            [sys.executable, "-c", code, str(store.root)],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert told.stdout.strip() == digest
    assert len(files(store)) == 1


def test_a_missing_result_says_where_it_should_be(store: ObjectStore) -> None:
    assert not store.has("ab" * 32)
    with pytest.raises(StoreError, match="No result abab") as caught:
        store.get("ab" * 32)
    assert str(store.path("ab" * 32)) in str(caught.value)
    assert not isinstance(caught.value, CorruptResultError)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "emptied", "longer"])
def test_a_damaged_result_is_never_served_but_set_aside_with_the_reason(store: ObjectStore, damage: str) -> None:
    digest = store.put(OUTPUT).digest
    path = store.path(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"flipped bit": bytes(data), "truncated": data[:-9], "emptied": b"", "longer": path.read_bytes() + b"\0"}[damage]
    path.chmod(0o644)
    path.write_bytes(damaged)
    with pytest.raises(CorruptResultError, match="quarantine"):
        store.get(digest)
    assert not store.has(digest)
    kept = {entry.suffix == ".txt": entry for entry in store.quarantine.iterdir()}
    assert kept[False].read_bytes() == damaged
    assert digest in kept[True].read_text()
    with pytest.raises(StoreError, match="No result"):
        store.get(digest)
    assert store.put(OUTPUT).digest == digest  # computed again
    assert store.get(digest).document == OUTPUT.document


def test_writing_again_heals_what_has_rotted_unnoticed(store: ObjectStore) -> None:
    digest = store.put(OUTPUT).digest
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"rotten")
    store.put(OUTPUT)
    assert store.get(digest).document == OUTPUT.document


def test_a_refused_output_leaves_nothing(store: ObjectStore) -> None:
    with pytest.raises(TaskError):
        store.put(Output(document={"energy": float("nan")}))
    assert files(store) == []


def test_a_result_waits_for_the_disk_unless_its_store_is_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and folder are synced before `put` returns; in a scratch store neither, whoever opens it."""
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor) or sync(descriptor))
    ObjectStore(tmp_path / "lasting").put(OUTPUT)
    assert len(synced) == 3  # the root, which has a new folder; the file; its folder
    synced.clear()
    ObjectStore(tmp_path / "scratch", scratch=True)
    store = ObjectStore(tmp_path / "scratch")
    assert store.get(store.put(OUTPUT).digest).document == OUTPUT.document
    assert synced == []


def test_unfinished_writes_of_dead_processes_are_removed_and_those_of_living_ones_kept(store: ObjectStore) -> None:
    this = Owner.this()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        there = Owner(this.machine, other.pid, this.started)
    dead = store.incoming / f"{there.label}.0123"
    reused = store.incoming / f"{Owner(this.machine, this.pid, this.started - 1).label}.0123"
    living = store.incoming / f"{this.label}.0123"
    elsewhere = store.incoming / f"{Owner('another-machine', other.pid, 1).label}.0123"
    for path in (dead, reused, living, elsewhere):
        path.write_bytes(b"half")
    ObjectStore(store.root)
    assert sorted(store.incoming.iterdir()) == sorted([living, elsewhere])


def test_a_root_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="MANYBODY_HOME"):
        ObjectStore(tmp_path / "file" / "objects")
