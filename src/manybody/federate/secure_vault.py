"""What a node keeps to itself between the stages of a secure aggregation: keys and shares, in a folder of its own.

Tasks are pure but for this: their answer also depends on secrets that the node draws once and never sends. What keeps
them safe to repeat is kept here too. The same request gets the same answer, so an attempt that was lost on the way may
be made again; another request at the same point of the session is answered only if the protocol goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from manybody.core.errors import StoreError, TaskError
from manybody.core.task import Output
from manybody.store.encoding import decode, encode
from manybody.store.home import Home

KEPT_S = 7 * 86400.0  # secrets of sessions that nobody has gone on with for so long are removed
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")

Step: TypeAlias = Callable[[Output | None], tuple[Output, Output]]


class Vault:
    """The secrets of one party of one session, below ``secrets`` in the node's own folder, readable by its user only."""

    def __init__(self, session: str, home: Home | None = None) -> None:
        if not _NAME.fullmatch(session):
            raise TaskError(f"session: expected lower case letters, digits and hyphens, at most 80; got {session!r}.")
        self._root = (home or Home()).path / "secrets"
        self._file = self._root / session / "state.safetensors"

    def answer(self, request: str, step: Step) -> Output:
        """What `step` answers to a request (its digest), from the state before it, of which it also gives the next.

        Runs once for a request: the answer is kept with the state, and given again to the same. Nothing is answered
        before it is on the disk. One request of a session at a time, whatever the number of processes.
        """
        with _explained(self._root):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_old(self._root)
            self._file.parent.mkdir(exist_ok=True, mode=0o700)
        with _locked(self._file.with_name("lock")):
            kept = decode(self._file.read_bytes()) if self._file.exists() else None
            if kept is not None and kept.document["request"] == request:
                return _part(kept, "answer")
            state, answer = step(_part(kept, "state") if kept is not None else None)
            arrays = {
                f"{part}/{name}": a for part, out in (("state", state), ("answer", answer)) for name, a in out.arrays.items()
            }
            documents = {"state": dict(state.document), "answer": dict(answer.document), "request": request}
            _write(self._file, encode(Output(arrays, documents)))
            return answer


def _joined(request: str, **parts: Output) -> Output:
    arrays = {f"{part}/{name}": array for part, output in parts.items() for name, array in output.arrays.items()}
    return Output(arrays, {"request": request} | {part: dict(output.document) for part, output in parts.items()})


def _part(kept: Output, part: str) -> Output:
    prefix = f"{part}/"
    arrays = {name.removeprefix(prefix): array for name, array in kept.arrays.items() if name.startswith(prefix)}
    return Output(arrays, kept.document[part])


def _write(path: Path, data: bytes) -> None:
    """Replace a file by one rename, once its bytes are on the disk."""
    fresh = path.with_name("fresh")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # or a power cut could bring an older state back, to be asked something else
    finally:
        os.close(folder)


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turn an error of the filesystem into one of the store: it is the machine's fault, not the task's."""
    try:
        yield
    except OSError as error:
        remedy = "Free some space, or see who may write there; nothing has been answered."
        raise StoreError(f"The secrets at {root} cannot be written: {error}. {remedy}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_old(root: Path) -> None:
    for folder in root.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has removed it meanwhile
            if time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder)
