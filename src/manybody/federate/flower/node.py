"""A client's part of Flower's SecAgg+, as a stage: Flower's own code for clients, around the training of a method.

The node keeps what is its own between the stages (`federate.secure_vault`), and adds what Flower leaves out: of a
peer's two secrets it reveals shares of one and never both, takes no threshold that two halves of the parties could
reach, and refuses to clip in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app import Context as FlowerContext
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key
from flwr.common.secure_aggregation.secaggplus_constants import Stage as Step
from flwr.compat.common import recorddict_compat as compat

from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.spec import Spec
from manybody.core.task import Output, Task
from manybody.federate.flower.records import pack, unpack
from manybody.federate.secure_training import Work
from manybody.federate.secure_vault import Vault


class Asked(Spec):
    """The parameters of the stage: whose part of which session, what to train with, and what the model's tensors are called."""

    session: str
    client: int
    names: tuple[str, ...]
    work: Work


def answer(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The reply to a message of Flower's SecAgg+; both are whole messages (`records.pack`)."""
    asked = Asked.model_validate(task.parameters)
    message = _message(asked, unpack(inputs["message"]))

    def step(before: Output | None) -> tuple[Output, Output]:
        state = unpack(before) if before is not None else RecordDict()
        _refuse_unsafe(message.content.config_records[RECORD_KEY_CONFIGS])

        def train(asking: Message, _: FlowerContext) -> Message:
            given = _trained(asked, task, asking.content, inputs, context)
            _refuse_clipping(state.config_records[RECORD_KEY_STATE], given)
            return Message(compat.fitres_to_recorddict(given, keep_input=False), reply_to=asking)

        flower = FlowerContext(run_id=1, node_id=asked.client, node_config={}, state=state, run_config={})
        reply = secaggplus_mod(message, flower, train)
        if state.config_records[RECORD_KEY_STATE]["current_stage"] == Step.UNMASK:  # the end: forget all the rest
            state.config_records[RECORD_KEY_STATE] = ConfigRecord({"current_stage": Step.UNMASK})
        return pack(state), pack(reply.content)

    return Vault(f"{asked.session}-{asked.client}").answer(task.digest, step)


def _message(asked: Asked, content: RecordDict) -> Message:
    metadata = Metadata(
        run_id=1, message_id="1", src_node_id=0, dst_node_id=asked.client, reply_to_message_id="", group_id="",
        created_at=0.0, ttl=1e9, message_type="train",
    )  # fmt: skip
    return Message(content, metadata=metadata)  # as Flower's runtime makes it; its types do not tell of this


def _trained(asked: Asked, task: Task, content: RecordDict, inputs: Mapping[str, Output], context: Context) -> FitRes:
    """What training makes of the model in a message, as Flower's clients tell it."""
    sent = content.array_records["fitins.parameters"]
    arrays = dict(zip(asked.names, (array.numpy() for array in sent.values()), strict=True))
    given = asked.work.run(task, {**inputs, "model": Output(arrays)}, context)
    parameters = ndarrays_to_parameters(asked.work.tensors(given, arrays))
    return FitRes(Status(Code.OK, ""), parameters, round(asked.work.weight(given)), {})


def _refuse_unsafe(configs: ConfigRecord) -> None:
    """Refuse what would let whoever asks see more than the sum."""
    if configs.get(Key.STAGE) == Step.SETUP:
        threshold, shares = cast("int", configs[Key.THRESHOLD]), cast("int", configs[Key.SHARE_NUMBER])
        if 2 * threshold <= shares:
            raise TaskError(f"threshold: expected more than half of {shares} shares; got {threshold}. Raise it.")
    if configs.get(Key.STAGE) == Step.UNMASK:
        there, gone = (cast("list[int]", configs[key]) for key in (Key.ACTIVE_NODE_ID_LIST, Key.DEAD_NODE_ID_LIST))
        both = set(there) & set(gone)
        if both:
            raise TaskError(f"expected each peer to be active or gone; got {sorted(both)} as both, which would unmask them.")


def _refuse_clipping(state: ConfigRecord, given: FitRes) -> None:
    """Refuse what the protocol would cut off: it quantises weight times value within a range."""
    limit, heaviest = float(str(state["clipping_range"])), float(str(state["max_weight"]))
    if given.num_examples > heaviest:
        raise TaskError(f"samples: expected at most max_weight = {heaviest:g}; got {given.num_examples}. Raise `max_weight`.")
    largest = max(float(np.max(np.abs(each), initial=0.0)) for each in parameters_to_ndarrays(given.parameters))
    if not largest * given.num_examples / heaviest <= limit:  # not a number is no better
        raise TaskError(f"expected values within clipping_range = {limit:g}; got {largest:g}. Raise `clipping_range`.")
