"""When compressing what is sent pays: time over a link, with and without."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from manybody.federate.embed import decode, encode
from manybody.federate.pod import Basis


def plain_time(size: float, bandwidth: float) -> float:
    """t = N / B.  size N: bytes; bandwidth B: bytes a second; returns seconds."""
    return size / bandwidth


def compressed_time(size: float, bandwidth: float, ratio: float, compress: float, decompress: float) -> float:
    """t = N / C + N / (r B) + N / D: compress, send, decompress, one after another.

    ratio r: uncompressed over compressed size; compress C and decompress D: uncompressed bytes a second.
    """
    return size / compress + size / (ratio * bandwidth) + size / decompress


def break_even(ratio: float, compress: float, decompress: float) -> float:
    """The bandwidth B = (1 - 1/r) / (1/C + 1/D) below which compression pays, bytes a second; 0 where it never does."""
    if ratio <= 1.0:
        return 0.0
    return (1.0 - 1.0 / ratio) / (1.0 / compress + 1.0 / decompress)


@dataclass(frozen=True)
class EmbeddingCost:
    """What embedding costs and saves on one machine, measured: ratio, and speeds in uncompressed bytes a second."""

    ratio: float
    compress: float
    decompress: float

    @classmethod
    def measured(cls, array: Any, bound: float, basis: Basis | None = None, repeats: int = 3) -> EmbeddingCost:
        """The cost for an array like `array`, the fastest of `repeats` runs (others on the machine only ever add time)."""
        embedding = encode(array, bound, basis)
        message = embedding.to_bytes()
        bases = {basis.digest: basis} if basis is not None else None
        coding = min(_seconds(lambda: encode(array, bound, basis)) for _ in range(repeats))
        decoding = min(_seconds(lambda: decode(message, bases)) for _ in range(repeats))
        size = embedding.header.plain_bytes
        return cls(size / len(message) if size else 1.0, _rate(size, coding), _rate(size, decoding))

    def pays(self, bandwidth: float) -> bool:
        """Whether an embedding arrives sooner than the array over a link of `bandwidth` bytes a second."""
        return bandwidth < self.break_even

    @property
    def break_even(self) -> float:
        """The bandwidth below which it pays, bytes a second."""
        return break_even(self.ratio, self.compress, self.decompress)


def _seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _rate(size: float, seconds: float) -> float:
    return size / seconds if seconds > 0 and size > 0 else math.inf
