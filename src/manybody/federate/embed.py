"""Partial states travel compressed, and never silently lossy: |decoded - sent| <= bound in every value, verified.

An embedding is a header and a body. The header says how it was made, the bound that was asked for and the error that
the sender measured by decoding its own message before it went out; when no lossy codec meets the bound, the message is
lossless. With a POD basis that both sides hold, the body starts with the coefficients, and the residual follows unless
it is within the bound. Reading is strict: no pickles, sizes checked before anything is allocated, digests before
anything is decoded.

A reader cannot know the original, so the measured error is the sender's word like the rest of its result; segment
checks and replicas, which recompute the state itself, cover both.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from manybody.core.digest import canonical_json, digest_bytes
from manybody.core.errors import InputError, Problem, TaskError
from manybody.core.spec import Spec
from manybody.federate.bounded import Codec, has_zfp, pack, unpack
from manybody.federate.pod import Basis
from manybody.federate.tensors import FLOATS, Tensor, as_array

MAGIC = b"MBE1"
HEADER_LIMIT = 4096
DECODED_LIMIT = 2**30
_PREFIX = struct.Struct("<4sI")
_LOSSLESS: tuple[Codec, ...] = ("deflate", "raw")
_WORTH = 0.9  # a lossy or deflated body has to save a tenth of the bytes, else the array goes as it is


class Header(Spec):
    """What a message says of itself."""

    format: Literal[1] = 1
    codec: Codec | Literal["none"] = Field(description="how the array, or with a basis its residual, is coded; `none`: dropped")
    dtype: Literal["float16", "float32", "float64"]
    shape: tuple[int, ...] = Field(max_length=8)
    bound: float = Field(ge=0, description="largest absolute error allowed in any value")
    error: float = Field(ge=0, description="largest absolute error that the sender measured by decoding")
    tolerance: float = Field(0.0, ge=0, description="what the codec was told")
    basis: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="digest of the POD basis of the leading coefficients")
    rank: int = Field(0, ge=0, description="how many coefficients lead the body, 8 bytes each")
    body_bytes: int = Field(ge=0)
    body_digest: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def values(self) -> int:
        """How many numbers the array has."""
        return math.prod(self.shape)

    @property
    def plain_bytes(self) -> int:
        """What the array weighs uncompressed."""
        return self.values * np.dtype(self.dtype).itemsize

    @property
    def ratio(self) -> float:
        """Uncompressed over compressed size of the array."""
        return self.plain_bytes / self.body_bytes if self.body_bytes else 1.0


@dataclass(frozen=True)
class Embedding:
    """An encoded array."""

    header: Header
    body: bytes

    def to_bytes(self) -> bytes:
        """The message: magic, length of the header, header as canonical JSON, body."""
        text = canonical_json(self.header.document()).encode()
        return _PREFIX.pack(MAGIC, len(text)) + text + self.body


@dataclass(frozen=True)
class _Attempt:
    """One way of coding an array, not yet known to meet the bound."""

    codec: Codec | Literal["none"]
    tolerance: float
    latent: Tensor | None
    body: bytes


def measured_error(sent: Tensor, decoded: Tensor) -> float:
    """max |sent - decoded|, rounded up to the next double where it is not exact zero; infinite where it overflows."""
    if sent.size == 0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        worst = float(np.max(np.abs(sent.astype(np.float64) - decoded.astype(np.float64))))
    if worst == 0.0:
        return 0.0
    return math.nextafter(worst, math.inf) if math.isfinite(worst) else math.inf


def encode(array: Any, bound: float, basis: Basis | None = None, where: str = "embedding") -> Embedding:
    """An array as an embedding whose every value is within `bound` of the original; bound 0 is lossless.

    `array` is float16, float32 or float64 of any shape, finite (`InputError` names `where` otherwise). Every attempt is
    decoded and measured; the first that holds and saves bytes is taken: POD, zfp, deflate, raw.
    """
    values = _checked(array, bound, where)
    for attempt in chain(_pod_attempts(values, bound, basis), _attempts(values, bound)):
        error = measured_error(values, _restore(attempt, values.dtype, values.shape, basis))
        size = len(attempt.body) + (8 * len(attempt.latent) if attempt.latent is not None else 0)
        if error <= bound and (attempt.codec == "raw" or size <= _WORTH * values.nbytes):
            return _embedding(attempt, values, bound, error, basis)
    raise AssertionError("a raw body is exact, so the last attempt always holds")


def _checked(array: Any, bound: float, where: str) -> Tensor:
    values = as_array(array)
    if values.dtype.name not in FLOATS:
        remedy = "Convert it first; integers travel as they are."
        raise InputError(Problem(where, f"one of {', '.join(FLOATS)}", f"{values.dtype}", remedy))
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(
            Problem(where, "finite numbers", f"{bad} of {values.size} NaN or infinite", "See why the state diverged.")
        )
    if not (math.isfinite(bound) and bound >= 0):
        raise InputError(Problem(where, "a bound, finite, not negative", f"{bound}", "Give 0 for lossless."))
    if values.ndim > 8 or values.nbytes > DECODED_LIMIT:
        came = f"{values.nbytes} bytes in {values.ndim} axes"
        raise InputError(Problem(where, f"at most {DECODED_LIMIT} bytes in 8 axes", came, "Send it in parts."))
    return values


def _attempts(values: Tensor, bound: float) -> Iterator[_Attempt]:
    """The ways of coding an array without a basis, best first; `raw` is last, and exact."""
    if values.size > 0:
        wide = values.astype(np.float32) if values.dtype == np.float16 else values
        yield from _lossy(wide, bound, None)
    for codec in _LOSSLESS:
        yield _Attempt(codec, 0.0, None, pack(codec, values))


def _pod_attempts(values: Tensor, bound: float, basis: Basis | None) -> Iterator[_Attempt]:
    """Coefficients alone, then coefficients and a coded residual."""
    if basis is None or values.size != basis.mean.size or basis.rank == 0:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        latent = basis.project(values)
        residual = values.astype(np.float64) - basis.expand(latent).reshape(values.shape)
    if np.all(np.isfinite(latent)) and np.all(np.isfinite(residual)):
        yield _Attempt("none", 0.0, latent, b"")
        yield from _lossy(residual, bound, latent)


def _lossy(values: Tensor, bound: float, latent: Tensor | None) -> Iterator[_Attempt]:
    """zfp at the bound, and at half of it: round-off on the way can take a result just past."""
    if bound > 0 and has_zfp():
        for tolerance in (bound, 0.5 * bound):
            if tolerance > 0:
                yield _Attempt("zfp", tolerance, latent, pack("zfp", values, tolerance))


def _restore(attempt: _Attempt, dtype: np.dtype[Any], shape: tuple[int, ...], basis: Basis | None) -> Tensor:
    """What a reader will make of an attempt."""
    coded = np.dtype(np.float32) if dtype == np.float16 and attempt.codec == "zfp" else dtype
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows has an infinite error, or is refused by the reader
        if attempt.latent is None or basis is None:
            assert attempt.codec != "none"
            return unpack(attempt.codec, attempt.body, coded, shape, attempt.tolerance).astype(dtype)
        restored = basis.expand(attempt.latent).reshape(shape)
        if attempt.codec != "none":
            restored = restored + unpack(attempt.codec, attempt.body, np.dtype(np.float64), shape, attempt.tolerance)
        return restored.astype(dtype)


def _embedding(attempt: _Attempt, values: Tensor, bound: float, error: float, basis: Basis | None) -> Embedding:
    lead = attempt.latent.astype("<f8").tobytes() if attempt.latent is not None else b""
    body = lead + attempt.body
    header = Header.model_validate(
        {
            "codec": attempt.codec,
            "dtype": values.dtype.name,
            "shape": values.shape,
            "bound": bound,
            "error": error,
            "tolerance": attempt.tolerance,
            "basis": basis.digest if basis is not None and attempt.latent is not None else None,
            "rank": len(lead) // 8,
            "body_bytes": len(body),
            "body_digest": digest_bytes(body),
        }
    )
    return Embedding(header, body)


def parse(message: bytes, where: str = "embedding", limit: int = DECODED_LIMIT) -> Embedding:
    """The embedding in a message, checked but not decoded. `limit` bounds the bytes of the message and of its array."""
    if not _PREFIX.size <= len(message) <= limit + HEADER_LIMIT + _PREFIX.size:
        raise _bad(where, f"at most {limit} bytes", f"{len(message)} bytes")
    magic, length = _PREFIX.unpack_from(message)
    if magic != MAGIC or length > min(HEADER_LIMIT, len(message) - _PREFIX.size):
        raise _bad(where, f"a header of at most {HEADER_LIMIT} bytes after {MAGIC!r}", f"{magic!r} and {length} bytes")
    try:
        header = Header.model_validate_json(message[_PREFIX.size : _PREFIX.size + length], strict=True)
    except ValidationError as error:
        raise _bad(where, "a header of format 1", f"{error.error_count()} wrong fields ({error.errors()[0]['msg']})") from error
    body = message[_PREFIX.size + length :]
    _check_sizes(header, body, where, limit)
    return Embedding(header, body)


def _check_sizes(header: Header, body: bytes, where: str, limit: int) -> None:
    if any(n < 0 for n in header.shape) or header.plain_bytes > limit:
        raise _bad(where, f"an array of at most {limit} bytes", f"{header.dtype}{list(header.shape)}")
    if len(body) != header.body_bytes or digest_bytes(body) != header.body_digest:
        raise _bad(where, f"{header.body_bytes} bytes of digest {header.body_digest[:8]}", f"{len(body)} others")
    if not header.error <= header.bound:
        raise _bad(where, f"an error within the bound {header.bound:g}", f"{header.error:g}")
    if (
        (header.basis is None) != (header.rank == 0)
        or 8 * header.rank > len(body)
        or (header.codec == "none") > (header.rank > 0)
    ):
        raise _bad(where, "coefficients if and only if a basis is named", f"{header.rank} in {len(body)} bytes")


def decode(
    message: bytes, bases: Mapping[str, Basis] | None = None, where: str = "embedding", limit: int = DECODED_LIMIT
) -> Tensor:
    """The array of a message. `bases` holds the POD bases that this side has, by digest.

    Raises `InputError` naming `where` for anything that is not a whole, unharmed message of a known format.
    """
    embedding = parse(message, where, limit)
    header, basis = embedding.header, None
    if header.basis is not None:
        basis = (bases or {}).get(header.basis)
        if basis is None:
            raise _bad(where, "a known POD basis", f"digest {header.basis[:8]}", "Fetch the basis first, by its digest.")
        if (basis.rank, basis.mean.size) != (header.rank, header.values):
            raise _bad(where, f"{basis.rank} coefficients for {basis.mean.size} values", f"{header.rank} for {header.values}")
    latent = np.frombuffer(embedding.body[: 8 * header.rank], "<f8") if basis is not None else None
    attempt = _Attempt(header.codec, header.tolerance, latent, embedding.body[8 * header.rank :])
    try:
        restored = _restore(attempt, np.dtype(header.dtype), header.shape, basis)
    except ValueError as error:
        raise _bad(where, "a body that its header describes", str(error)) from error
    if not np.all(np.isfinite(restored)):
        raise _bad(where, "finite numbers", "NaN or infinite ones")
    return restored


class Bounded:
    """Embeddings for methods that let neighbours exchange less than all bits (`core.split.Embedding`)."""

    @staticmethod
    def encode(array: Tensor, bound: float) -> tuple[bytes, float]:
        """The message for an array, and the largest error in it. Needs zfp, or other nodes would give other bytes."""
        if not has_zfp():
            expected = "expected the package zfpy, for embeddings that are the same anywhere"
            raise TaskError(f"{expected}; it is not installed here. Install it: pip install 'manybody[compress]'.")
        embedding = encode(array, bound)
        return embedding.to_bytes(), embedding.header.error

    @staticmethod
    def decode(message: bytes) -> Tensor:
        """The array of a message."""
        return decode(message)


def _bad(where: str, expected: str, came: str, remedy: str = "Ask the sender for it again; do not use it.") -> InputError:
    return InputError(Problem(where, expected, came, remedy))
