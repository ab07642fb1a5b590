"""Results on their way: streamed into a partial file, resumed after a break, verified, then visible by one rename.

Both ends use this: the gateway for what nodes send, the node for the inputs that it fetches.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open

from manybody.core.digest import digest_bytes
from manybody.core.errors import ManybodyError, StoreError
from manybody.store.objects import ObjectStore

STALE_S = 7 * 86400.0  # a partial file that nobody has gone on with for a week is removed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RefusedBlobError(ManybodyError):
    """What came is no result: wrong digest, or not the format of one."""


class Partial:
    """The part of a result that has come so far. `label` tells transfers of the same result apart."""

    def __init__(self, objects: ObjectStore, digest: str, label: str) -> None:
        self.objects, self.digest = objects, digest
        name = hashlib.sha256(f"{label}/{digest}".encode()).hexdigest()[:40]
        self.path = objects.incoming / f"part-{name}"

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, offset: int, data: bytes) -> None:
        """Put bytes at `offset`, which must not lie beyond what is there. Raises `StoreError` where the disk is full."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.seek(offset)
                file.write(data)
                file.truncate()
        except OSError as error:
            self._explain(error, len(data))

    def accept(self) -> int:
        """Verify what has come and make it visible; returns its size. Raises `RefusedBlobError` where it is no result."""
        try:
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
                if found != self.digest:
                    raise RefusedBlobError(
                        f"expected a result of digest {self.digest}; the {size} bytes have {found}. Send it again."
                    )
                _check_format(self.path)
                os.fsync(file.fileno())
            target = self.objects.path(self.digest)
            target.parent.mkdir(exist_ok=True)
            self.path.chmod(0o444)  # a result is never changed
            self.path.replace(target)
            _sync_folder(target.parent)
        except RefusedBlobError:
            self.drop()
            raise
        except FileNotFoundError:
            raise RefusedBlobError("expected a result; nothing has come.") from None
        except OSError as error:
            self._explain(error, 0)
        return size

    def drop(self) -> None:
        """Forget what has come."""
        self.path.unlink(missing_ok=True)

    def _explain(self, error: OSError, needed: int) -> NoReturn:
        if error.errno in _FULL:
            self.drop()
            free = shutil.disk_usage(self.objects.root).free
            raise StoreError(f"The disk of {self.objects.root} is full: {needed} bytes are needed, {free} are free.") from error
        raise StoreError(f"The store at {self.objects.root} cannot be written: {error}.") from error


def keep(objects: ObjectStore, digest: str, data: bytes) -> int:
    """Put a result that came in one piece into the store; returns its size. Raises `RefusedBlobError` where it is none."""
    found = digest_bytes(data)
    if found != digest:
        raise RefusedBlobError(f"expected a result of digest {digest}; the {len(data)} bytes have {found}. Send it again.")
    objects.store(digest, data, _check_format)
    return len(data)


def _check_format(path: Path) -> None:
    """Refuse what is no result: the header says so, the arrays need not be read. No NaN in the document."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise RefusedBlobError(f"expected a result in safetensors; got {error}. Only results may be stored.") from error
    if set(metadata) != {"document"}:
        raise RefusedBlobError(f"expected one metadata entry `document`; got {sorted(metadata)}.")
    try:
        document = json.loads(metadata["document"], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedBlobError(f"expected a JSON document without NaN; got {error}.") from error
    if not isinstance(document, dict):
        raise RefusedBlobError(f"expected a JSON object as document; got {type(document).__name__}.")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"the number {name}")


def remove_stale(objects: ObjectStore, now: float) -> None:
    """Remove partial files that nobody goes on with."""
    for path in objects.incoming.glob("part-*"):
        try:
            if now - path.stat().st_mtime > STALE_S:
                path.unlink()
        except FileNotFoundError:  # just completed by its transfer
            continue


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
