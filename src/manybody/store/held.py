"""What a node holds and never sends: data by name, and the secret that its noise is made from.

Both lie in the folder ``MANYBODY_DATA`` (by default `data` in the platform's folder for a user's data). Nodes that hold
copies of the same data must hold the same secret, or a second computation would tell more than was accounted for.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from platformdirs import user_data_dir

from manybody.core.errors import StoreError

KINDS = (".npz", ".extxyz")
SECRET = "noise.secret"
SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def folder() -> Path:
    """The folder of this node's own data."""
    told = os.environ.get("MANYBODY_DATA", "").strip()
    return Path(told).expanduser().absolute() if told else Path(user_data_dir("manybody")) / "data"


def held(name: str) -> Path:
    """The file of the data `name`, with one of the known endings.

    Raises `StoreError` where this node has none: it is no fault of the task, and another node may well have them.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"Expected a name of letters, digits, `-` and `_`, at most 64; got {name!r}. Rename the data.")
    place = folder()
    files = [place / f"{name}{kind}" for kind in KINDS]
    found = [file for file in files if file.is_file() and not file.is_symlink()]
    if len(found) != 1:
        came = "both" if found else "neither"
        kinds = " or ".join(f"{name}{kind}" for kind in KINDS)
        raise StoreError(f"Expected {kinds} in {place}; got {came}. Put the data on a node that may train on them.")
    return found[0]


def names() -> frozenset[str]:
    """The names of all data that this node holds."""
    place = folder()
    files = [file for file in place.iterdir() if file.is_file() and not file.is_symlink()] if place.is_dir() else []
    return frozenset(file.stem for file in files if file.suffix in KINDS and _NAME.fullmatch(file.stem))


def noise_secret() -> bytes:
    """The secret of this node, 32 bytes; made, readable by its owner alone, where there is none yet."""
    place = folder() / SECRET
    try:
        if not place.exists():
            _make_secret(place)
        secret = place.read_bytes()
    except OSError as error:
        raise StoreError(f"Expected the noise secret in {place}; {error.strerror}. Make the folder writable.") from error
    if len(secret) != SECRET_BYTES:
        raise StoreError(f"Expected {SECRET_BYTES} bytes in {place}; got {len(secret)}. Remove the file for a new secret.")
    return secret


def _make_secret(place: Path) -> None:
    """Write a secret whole; of two processes that do so at once the first one's stays."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{SECRET}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, place)
    except FileExistsError:
        return
    finally:
        fresh.unlink()
