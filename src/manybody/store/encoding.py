"""Outputs as bytes: one safetensors file, the document as its one metadata entry, the same bytes for the same output.

Source: the safetensors format, https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from manybody.core.digest import canonical_json
from manybody.core.errors import CorruptResultError, TaskError
from manybody.core.task import Output

DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64",
)  # fmt: skip
_ENTRY = "document"  # one entry only: safetensors keeps several in a hash map, whose order differs between processes
_HEADER_LIMIT = 100_000_000  # bytes; longer headers are refused by every reader of the format
_RESERVED = "__metadata__"  # the format's own key


def encode(output: Output) -> bytes:
    """The bytes of an output. Raises `TaskError` where it holds what cannot be kept exactly."""
    arrays = {_name(name): _array(name, value) for name, value in output.arrays.items()}
    text = canonical_json(_plain(output.document, "document"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise TaskError(f"document: expected Unicode text; got half of a surrogate pair ({error}). Decode it first.") from error
    if size > _HEADER_LIMIT // 2:
        raise TaskError(f"document: expected at most {_HEADER_LIMIT // 2} bytes of JSON; got {size}. Put long lists into arrays.")
    return bytes(save(arrays, {_ENTRY: text}))


def decode(data: bytes) -> Output:
    """The output that `encode` made `data` from; the arrays are writable copies.

    Raises `CorruptResultError` where the bytes are no output: whoever made them did not use `encode`.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        document = json.loads(header[_RESERVED][_ENTRY])
        output = Output(arrays=load(data), document=document)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptResultError(f"Expected the bytes of a result; got {len(data)} that are none ({error}).") from error
    if not isinstance(document, dict):
        raise CorruptResultError(f"Expected the document of a result to be a mapping; got {type(document).__name__}.")
    return output


def _name(name: object) -> str:
    if not isinstance(name, str) or name == _RESERVED:
        raise TaskError(f"arrays: expected a name other than `{_RESERVED}`; got {name!r}. Rename the array.")
    return name


def _array(name: str, value: object) -> np.ndarray:
    """`value` as a contiguous array in the machine's byte order: the format takes bytes as they lie, strides unseen."""
    if not isinstance(value, np.ndarray):
        raise TaskError(f"array `{name}`: expected a numpy array; got {type(value).__name__}. Scalars belong in the document.")
    if value.dtype.newbyteorder("=").name not in DTYPES:
        remedy = "Convert it; text and scalars belong in the document, complex128 is kept as its real and imaginary parts."
        raise TaskError(f"array `{name}`: expected a dtype of {', '.join(DTYPES)}; got {value.dtype}. {remedy}")
    return np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")


def _plain(value: Any, where: str) -> Any:
    """`value` if JSON brings it back as it was (tuples as lists); else a `TaskError` that names the place."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        remedy = "Leave it out, or raise TaskError where the result is meaningless."
        raise TaskError(f"{where}: expected a finite number; got {value}. {remedy}")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TaskError(f"{where}: expected names as keys; got {key!r}. Write it as text.")
        return {key: _plain(member, f"{where}.{key}") for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member, f"{where}[{index}]") for index, member in enumerate(value)]
    remedy = "Numpy scalars become plain by `.item()`, arrays belong in `arrays`."
    raise TaskError(f"{where}: expected text, a number, a list or a mapping; got {type(value).__name__}. {remedy}")
