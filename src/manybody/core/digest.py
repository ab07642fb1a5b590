"""Digests: the identity of studies, tasks and results."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(document: Any) -> str:
    """The one JSON text of a document: sorted keys, no spaces, shortest round-trip floats, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest_bytes(data: bytes) -> str:
    """SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_document(document: Any) -> str:
    """SHA-256 of a document's canonical JSON."""
    return digest_bytes(canonical_json(document).encode())
