"""How parameters and updates stand in the outputs of tasks: plain tensors, moments of a rule, or embeddings.

Tensors are arrays ``tensor.NAME``; moments ``moment.MOMENT.NAME``; a compressed tensor is its message as bytes in
``message.NAME``. Facts stand in the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.task import Output
from manybody.federate.bounded import has_zfp
from manybody.federate.embed import decode, encode
from manybody.federate.rule import ServerState
from manybody.federate.tensors import Contribution, NamedTensors

TENSOR, MOMENT, MESSAGE, AGREED = "tensor.", "moment.", "message.", "agreed."


def part(output: Output, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of an output whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in output.arrays.items() if name.startswith(prefix)}


def prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors as arrays of an output."""
    return {prefix + name: np.array(tensor) for name, tensor in tensors.items()}


def state_output(state: ServerState, agreed: Mapping[str, Any], **document: Any) -> Output:
    """Parameters, moments, and what all agree on."""
    arrays = prefixed(TENSOR, state.parameters) | prefixed(AGREED, agreed)
    for moment, tensors in state.moments.items():
        arrays |= prefixed(f"{MOMENT}{moment}.", tensors)
    return Output(arrays, {"rounds": state.rounds, **document})


def state_of(output: Output) -> ServerState:
    """The parameters and moments in an output."""
    moments: dict[str, dict[str, np.ndarray]] = {}
    for name, array in part(output, MOMENT).items():
        moment, _, tensor = name.partition(".")
        moments.setdefault(moment, {})[tensor] = array
    return ServerState(part(output, TENSOR), moments, int(output.document["rounds"]))


def sent(tensors: NamedTensors, bound: float | None, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors as arrays of an output, compressed where there is a `bound`; and what that cost, for the document."""
    if bound is None:
        return prefixed(TENSOR, tensors), {}
    if bound > 0 and not has_zfp():  # a node without it would send other bytes
        raise TaskError(
            f"{where}: expected the package zfpy, for a bounded exchange; got none. pip install 'manybody[compress]'."
        )
    embeddings = {name: encode(tensor, bound, where=f"{where}, tensor {name}") for name, tensor in tensors.items()}
    messages = {name: np.frombuffer(each.to_bytes(), dtype=np.uint8) for name, each in embeddings.items()}
    headers = [each.header for each in embeddings.values()]
    told = {
        "bound": bound,
        "error": max((header.error for header in headers), default=0.0),
        "plain_bytes": sum(header.plain_bytes for header in headers),
        "sent_bytes": sum(len(message) for message in messages.values()),
    }
    return prefixed(MESSAGE, messages), {"exchange": told}


def received(output: Output, before: NamedTensors, where: str) -> dict[str, np.ndarray]:
    """The parameters in a party's output: as they are, or `before` and the decoded change.

    A message is read strictly and may not claim more bytes than the tensor of its name has.
    """
    if not (messages := part(output, MESSAGE)):
        return part(output, TENSOR)
    strange = sorted(messages.keys() ^ before.keys())
    if strange:
        raise TaskError(f"{where}: expected a message for each of {', '.join(sorted(before))}; differs in {', '.join(strange)}.")
    changes = {
        name: decode(message.tobytes(), where=f"{where}, tensor {name}", limit=max(before[name].nbytes, 1))
        for name, message in messages.items()
    }
    return {name: before[name] + change for name, change in changes.items()}


def contribution(party: str, output: Output, before: NamedTensors) -> Contribution:
    """A party's contribution to a round, from the output of its `fit`."""
    facts = {name: output.document.get(name) for name in ("samples", "capacity", "variance")}
    return Contribution(party, received(output, before, f"party {party}"), **facts)
