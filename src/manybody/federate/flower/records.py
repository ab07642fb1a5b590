"""A whole message of Flower's as an output, and back: tensors and bytes as arrays, numbers and text in the document."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from manybody.core.task import Output

_BYTES = "bytes"  # in the document: which arrays hold what was bytes


def pack(content: RecordDict) -> Output:
    """Records of all three kinds, in their order, without loss."""
    arrays: list[np.ndarray] = []

    def keep(array: np.ndarray) -> int:
        arrays.append(array)
        return len(arrays) - 1

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return {_BYTES: keep(np.frombuffer(value, np.uint8))}
        if isinstance(value, list) and value and isinstance(value[0], bytes):
            return {_BYTES: [keep(np.frombuffer(each, np.uint8)) for each in value]}
        return value

    document = {
        "tensors": {n: [[k, keep(a.numpy())] for k, a in record.items()] for n, record in content.array_records.items()},
        "settings": {n: [[k, plain(v)] for k, v in record.items()] for n, record in content.config_records.items()},
        "metrics": {n: [[k, v] for k, v in record.items()] for n, record in content.metric_records.items()},
    }
    return Output({str(number): array for number, array in enumerate(arrays)}, document)


def unpack(output: Output) -> RecordDict:
    """The message that `pack` made an output of."""

    def value(kept: Any) -> Any:
        if not isinstance(kept, dict):
            return kept
        where = kept[_BYTES]
        return [_bytes(output, each) for each in where] if isinstance(where, list) else _bytes(output, where)

    content = RecordDict()
    for name, items in output.document["tensors"].items():
        content[name] = ArrayRecord({key: Array(output.arrays[str(number)]) for key, number in items})
    for name, items in output.document["settings"].items():
        content[name] = ConfigRecord({key: value(kept) for key, kept in items})
    for name, items in output.document["metrics"].items():
        content[name] = MetricRecord(dict(items))
    return content


def _bytes(output: Output, number: int) -> bytes:
    return output.arrays[str(number)].tobytes()
