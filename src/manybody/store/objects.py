"""Content-addressed results: a file's name is the SHA-256 of its bytes, so what is read is what was written.

A result becomes visible by one rename, after its bytes have reached the disk: readers see all of it or nothing,
whoever is killed and whatever runs full.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from manybody.core.digest import digest_bytes
from manybody.core.errors import CorruptResultError, StoreError
from manybody.core.task import Output
from manybody.store.encoding import decode, encode
from manybody.store.liveness import Owner

_SUFFIX = ".safetensors"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class StoredObject:
    """A result in the store: its digest, and its size in bytes."""

    digest: str
    nbytes: int


class ObjectStore:
    """Results below `root`: ``ab/cdef….safetensors``; ``incoming`` holds unfinished writes, ``quarantine`` what was corrupt.

    Any number of processes may use one root at once, on one filesystem. Made with `scratch`, it is for what need not
    outlive the machine's memory: nobody waits for the disk. A file of that name says so to all who open it.
    """

    def __init__(self, root: Path, scratch: bool = False) -> None:
        self.root = root.absolute()
        self.incoming = self.root / "incoming"
        self.quarantine = self.root / "quarantine"
        with _explained(self.root, 0):
            self.incoming.mkdir(parents=True, exist_ok=True)
            self.quarantine.mkdir(exist_ok=True)
            if scratch:
                (self.root / "scratch").touch()
        self._lasts = not (self.root / "scratch").exists()
        self._remove_stale()

    def path(self, digest: str) -> Path:
        """Where the result with this digest lies, or would."""
        return self.root / digest[:2] / f"{digest[2:]}{_SUFFIX}"

    def has(self, digest: str) -> bool:
        """Whether there is a result with this digest (not whether it is intact: `get` looks)."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int | None:
        """Bytes of the result with this digest; None where there is none."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def was_set_aside(self, digest: str) -> bool:
        """Whether a result with this digest was found corrupt."""
        return any(self.quarantine.glob(f"{digest}.*"))

    def put(self, output: Output) -> StoredObject:
        """Store an output durably.

        Raises `TaskError` where the output holds what cannot be kept, `StoreError` where the disk is full. A result
        that is already there is written anew, which also heals one that has rotted unnoticed.
        """
        data = encode(output)
        digest = digest_bytes(data)
        self.store(digest, data)
        return StoredObject(digest, len(data))

    def store(self, digest: str, data: bytes, check: Callable[[Path], None] = lambda path: None, lasting: bool = True) -> None:
        """Store bytes that have this digest, unless `check` raises at the file that they are in.

        Durably; what can be made again at any time need not be `lasting`, which is quicker.
        """
        target = self.path(digest)
        lasting = lasting and self._lasts
        with _explained(self.root, len(data)):
            if not target.parent.is_dir():
                target.parent.mkdir(exist_ok=True)
                if self._lasts:  # what is put there next may be lasting
                    _sync_folder(self.root)
            self._write(data, target, check, lasting)

    def remove(self, digest: str) -> None:
        """Remove what the ledger no longer needs; fine where it is gone already."""
        with _explained(self.root, 0):
            self.path(digest).unlink(missing_ok=True)

    def get(self, digest: str) -> Output:
        """The output with this digest, verified.

        Raises `StoreError` when there is none, `CorruptResultError` when its bytes do not match (they are set aside).
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"No result {digest} at {path}. Run the study again to compute it.") from None
        except OSError as error:
            raise StoreError(f"Result {digest} at {path} cannot be read: {error}. Check the disk and its permissions.") from error
        found = digest_bytes(data)
        if found != digest:
            self._set_aside(digest, f"expected {digest}; the {len(data)} bytes found have {found}")
        return decode(data)

    def _write(self, data: bytes, target: Path, check: Callable[[Path], None], lasting: bool) -> None:
        temporary = self.incoming / f"{Owner.this().label}.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)  # a result is never changed
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                check(temporary)
                if lasting:
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if lasting:
            _sync_folder(target.parent)

    def _set_aside(self, digest: str, reason: str) -> None:
        kept = self.quarantine / f"{digest}.{secrets.token_hex(4)}"
        told = f"Result {digest} is corrupt: {reason}. It is kept as {kept}; run the study again to compute it anew."
        try:
            self.path(digest).rename(kept)
            kept.with_name(f"{kept.name}.reason.txt").write_text(f"{told}\n", encoding="utf-8")
        except FileNotFoundError:  # another reader has set it aside meanwhile
            raise CorruptResultError(f"Result {digest} is corrupt: {reason}. Run the study again to compute it anew.") from None
        except OSError as error:
            raise CorruptResultError(f"{told} Setting it aside met: {error}.") from error
        raise CorruptResultError(told)

    def _remove_stale(self) -> None:
        """Remove what processes that are gone left half-written."""
        for path in self.incoming.iterdir():
            owner = Owner.parse(path.name.rpartition(".")[0])
            if owner is not None and owner.is_gone():
                path.unlink(missing_ok=True)


@contextmanager
def _explained(root: Path, needed: int) -> Iterator[None]:
    """Turn an error of the filesystem into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
            message = f"The disk of {root} is full: {needed} bytes are needed, {free} are free. Nothing half-written was kept."
            raise StoreError(f"{message} Free some space, or set MANYBODY_HOME to a folder on a larger disk.") from error
        remedy = "Check that the folder exists and may be written, or set MANYBODY_HOME to another."
        raise StoreError(f"The store at {root} cannot be written: {error}. {remedy}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
