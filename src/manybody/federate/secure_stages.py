"""A party's four stages of a secure aggregation (`federate.secure_sum`), each a task; its secrets stay in its node's vault.

Bytes travel as arrays of uint8 named ``KIND/PARTY``. A stage is answered once, and only after the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.spec import Spec
from manybody.core.task import Output, Task
from manybody.federate.secure_sum import Announced, Secrets, Terms, fixed, masked, opened, packets, revealed
from manybody.federate.secure_training import Work
from manybody.federate.secure_vault import Vault
from manybody.federate.shamir import Share

Arrays = Mapping[str, np.ndarray]
StageName = Literal["announce", "share", "mask", "reveal"]
BEFORE: Mapping[str, str] = {"share": "announce", "mask": "share", "reveal": "mask"}


class Part(Spec):
    """Parameters of the stages: whose part, on which terms; `work` is for `mask` alone, `arrived` for `reveal`."""

    terms: Terms
    party: str
    work: Work | None = None
    arrived: tuple[str, ...] = ()


def announce(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Draw this party's secrets; give its public keys and the digest of its seed."""

    def step(part: Part, state: Arrays) -> tuple[Arrays, Arrays]:
        own = Secrets.drawn()
        kept = {f"own/{kind}": np.frombuffer(getattr(own, kind), np.uint8) for kind in Secrets.__dataclass_fields__}
        return kept, announcement({part.party: own.announced(part.terms, part.party)})

    return _answered(task, "announce", step)


def share(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Share this party's secrets out among those that have announced themselves (input `announced`)."""

    def step(part: Part, state: Arrays) -> tuple[Arrays, Arrays]:
        told = inputs["announced"].arrays
        sealed = packets(part.terms, part.party, _own(state), announced(told))
        return dict(state) | {f"known/{name}": array for name, array in told.items()}, written("packet", sealed)

    return _answered(task, "share", step)


def mask(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Train from the input `model`, and give ``masked``: weight times each tensor, then the weight; in one vector.

    The input `packets` holds what the others have shared with this party; who has not shared is left out of its masks.
    """

    def step(part: Part, state: Arrays) -> tuple[Arrays, Arrays]:
        own, known = _own(state), announced(_under(state, "known"))
        sealed = read("packet", inputs["packets"].arrays)
        shares = opened(part.terms, part.party, own, known, sealed)
        vector = fixed(_trained(part, task, inputs, context), part.terms)
        kept = written("seed-share", {other: pair[0].to_bytes() for other, pair in shares.items()})
        kept |= written("mask-share", {other: pair[1].to_bytes() for other, pair in shares.items()})
        return kept, {"masked": masked(part.terms, part.party, own, known, list(sealed), vector)}

    return _answered(task, "mask", step)


def reveal(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Tell what unmasks the sum of those that have `arrived`, and forget the session."""

    def step(part: Part, state: Arrays) -> tuple[Arrays, Arrays]:
        x = part.terms.point(part.party)
        seeds, masks = read("seed-share", state), read("mask-share", state)
        shares = {other: (Share.read(x, seeds[other]), Share.read(x, masks[other])) for other in seeds}
        told = revealed(part.terms, part.party, shares, part.arrived)
        return {}, written("share", {other: each.to_bytes() for other, each in told.items()})

    return _answered(task, "reveal", step)


# --- what travels ----------------------------------------------------------------------------------------------


def written(kind: str, told: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Bytes of each party as arrays."""
    return {f"{kind}/{party}": np.frombuffer(data, np.uint8) for party, data in told.items()}


def read(kind: str, arrays: Arrays) -> dict[str, bytes]:
    """The bytes of each party."""
    return {party: array.tobytes() for party, array in _under(arrays, kind).items()}


def announcement(known: Mapping[str, Announced]) -> dict[str, np.ndarray]:
    """What parties have announced, as arrays."""
    found: dict[str, np.ndarray] = {}
    for kind in Announced.__dataclass_fields__:
        found |= written(kind, {party: getattr(each, kind) for party, each in known.items()})
    return found


def announced(arrays: Arrays) -> dict[str, Announced]:
    """What parties have announced. Raises `TaskError` where they leave something out."""
    kinds = {kind: read(kind, arrays) for kind in Announced.__dataclass_fields__}
    if len({frozenset(told) for told in kinds.values()}) != 1:
        raise TaskError(f"announcement: expected {', '.join(kinds)} of each party; got {', '.join(sorted(arrays))}.")
    return {party: Announced(**{kind: told[party] for kind, told in kinds.items()}) for party in kinds["masks"]}


def _under(arrays: Arrays, kind: str) -> dict[str, np.ndarray]:
    prefix = f"{kind}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# --- what stays ------------------------------------------------------------------------------------------------


def _answered(task: Task, stage: StageName, step: Callable[[Part, Arrays], tuple[Arrays, Arrays]]) -> Output:
    """The answer to a task, given once by the vault, if the session has come to its stage on the same terms."""
    part = Part.model_validate(task.parameters)

    def checked(before: Output | None) -> tuple[Output, Output]:
        done = before.document["done"] if before is not None else None
        if done != BEFORE.get(stage) or (before is not None and before.document["terms"] != part.terms.digest):
            expected = f"expected {part.party} to have done `{BEFORE.get(stage, 'nothing')}` of this session, on the same terms"
            raise TaskError(f"{task.label}: {expected}; it has done `{done or 'nothing'}`. Begin a new session.")
        state, answer = step(part, before.arrays if before is not None else {})
        return Output(state, {"done": stage, "terms": part.terms.digest}), Output(answer)

    return Vault(f"{part.terms.session}-{part.terms.point(part.party)}").answer(task.digest, checked)


def _own(state: Arrays) -> Secrets:
    return Secrets(**read("own", state))


def _trained(part: Part, task: Task, inputs: Mapping[str, Output], context: Context) -> np.ndarray:
    """Weight times each tensor, in the order of their names, then the weight; [values + 1]."""
    if part.work is None:
        raise TaskError(f"{task.label}: expected `work`; got none. Say what {part.party} trains with.")
    given = part.work.run(task, {name: output for name, output in inputs.items() if name != "packets"}, context)
    model, weight = inputs["model"].arrays, part.work.weight(given)
    tensors = part.work.tensors(given, {name: model[name] for name in sorted(model)})
    return np.concatenate([*(weight * tensor.astype(np.float64).ravel() for tensor in tensors), [float(weight)]])
