"""Codecs for arrays of floats: bytes out, and back, with a bound on the error or none at all.

``zfp`` (Lindstrom, IEEE TVCG 20, 2674, 2014; extra ``manybody[compress]``) loses at most a tolerance; ``deflate`` loses
nothing (bytes of equal significance together, then zlib); ``raw`` is the array. None of them trusts what it reads: the
output's size is known before, zlib is stopped at it, and zfp gets a buffer as long as its longest possible stream, so
that no forged stream makes it read past the end.
"""

from __future__ import annotations

import math
import zlib
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.federate.tensors import Tensor

Codec = Literal["raw", "deflate", "zfp"]

ZFP_ITEMS = {"float32": "type_float", "float64": "type_double"}


def has_zfp() -> bool:
    """Whether the zfp library is installed."""
    return find_spec("zfpy") is not None


@cache
def _zfp() -> Any:
    try:
        return import_module("zfpy")
    except ModuleNotFoundError as missing:
        remedy = "Install it: pip install 'manybody[compress]'."
        raise InputError(Problem("codec zfp", "the package zfpy", "nothing of that name", remedy)) from missing


def zfp_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which zfp sees an array: at most 4 axes, none shorter than its blocks of 4 unless it is the only one.

    Short axes are merged with a neighbour: a block padded from 3 to 4 would cost a third more.
    """
    axes = [n for n in shape if n != 1] or [1]
    while len(axes) > 1 and (len(axes) > 4 or min(axes) < 4):
        short = axes.index(min(axes))
        other = short - 1 if short > 0 else 1
        first = min(short, other)
        axes[first : first + 2] = [axes[first] * axes[first + 1]]
    return tuple(axes)


def zfp_longest(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes that no zfp stream of this shape exceeds.

    A block of 4^d values holds a flag and an exponent (12 bits), each bit plane of each value once, and at most one
    group test for each value and each plane (``zfp_stream_maximum_size``); rounded up generously.
    """
    values = int(4 ** len(shape))
    bits = values * (8 * itemsize + 2) + 128
    blocks: int = math.prod(-(-n // 4) for n in shape)
    return 64 + (blocks * bits + 7) // 8


def pack(codec: Codec, array: Tensor, tolerance: float = 0.0) -> bytes:
    """An array as bytes. `tolerance` is what zfp aims at; it is met for moderate ranges of values and must be verified."""
    array = np.ascontiguousarray(array)
    match codec:
        case "raw":
            return _little(array).tobytes()
        case "deflate":
            planes = _little(array).reshape(-1).view(np.uint8).reshape(array.size, array.itemsize)
            return zlib.compress(np.ascontiguousarray(planes.T).tobytes(), level=1)
        case "zfp":
            if array.size == 0:
                return b""  # zfp itself does not survive an empty array
            packed: bytes = _zfp().compress_numpy(array.reshape(zfp_shape(array.shape)), tolerance=tolerance, write_header=False)
            return packed


def unpack(codec: Codec, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], tolerance: float = 0.0) -> Tensor:
    """The array in `data`; raises `ValueError` where the bytes are not those of such an array."""
    match codec:
        case "raw":
            return _array(data, dtype, shape)
        case "deflate":
            plain = _inflate(data, math.prod(shape) * dtype.itemsize)
            planes = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, math.prod(shape))
            return _array(np.ascontiguousarray(planes.T).tobytes(), dtype, shape)
        case "zfp":
            if math.prod(shape) == 0:
                return np.zeros(shape, dtype)
            blocks = zfp_shape(shape)
            longest = zfp_longest(blocks, dtype.itemsize)
            if len(data) > longest or dtype.name not in ZFP_ITEMS or not tolerance > 0:
                raise ValueError(f"not a zfp stream of {dtype.name}{list(shape)} with tolerance {tolerance}")
            kind = getattr(_zfp(), ZFP_ITEMS[dtype.name])
            values = _zfp()._decompress(data.ljust(longest, b"\0"), kind, blocks, tolerance=tolerance)
            return np.asarray(values).reshape(shape)


def _little(array: Tensor) -> Tensor:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _array(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Tensor:
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are not {dtype.name}{list(shape)}")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _inflate(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"not a zlib stream: {error}") from error
    if len(plain) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"a zlib stream of other than {size} bytes")
    return plain
