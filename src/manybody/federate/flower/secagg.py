"""Flower's SecAgg+ over a network of ours: its server's workflow here, its clients' part on the nodes.

What it protects from is somebody who reads along, no more: in Flower 1.41.0 the seed of a mask is folded to 32 bits
(`pseudo_rand_gen`), which can be searched through.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app import Context as FlowerContext
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat as compat
from flwr.server import History, LegacyContext, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import Strategy
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

from manybody.core.errors import TaskError
from manybody.core.task import Output, Task
from manybody.federate.flower.grid import FlowerGrid
from manybody.federate.flower.records import pack, unpack
from manybody.federate.flower.training import Client, Shelf, Training
from manybody.federate.secure import SecureAggregation
from manybody.federate.secure_training import Work

NAME = SecureAggregation.model_fields["name"].default


@dataclass(frozen=True)
class SecAggPlusTraining:
    """The `fit` stage of a method inside Flower's SecAgg+: nodes train, mask, and send what only a sum makes sense of.

    `names` are those of the model's tensors, in order: Flower's legacy messages carry them without. Data that shall
    stay with a node must not be among `Client.inputs`, which are in the store of whoever asks: the stage reads them
    from the node's own folder.
    """

    training: Training
    names: Sequence[str]
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def task(self, message: Message, client: Client, shelf: Shelf) -> Task:
        """The task that hands a message to a client's part of the protocol."""
        work = Work(
            method=self.training.method, stage=self.training.stages["train"], version=self.training.version,
            system=dict(self.training.system), parameters=dict(client.parameters), seed=self.training.seed,
        )  # fmt: skip
        parameters = {
            "session": self.session, "client": message.metadata.dst_node_id, "names": list(self.names), "work": work.document(),
        }  # fmt: skip
        inputs = dict(client.inputs) | {"message": shelf.objects.put(pack(message.content)).digest}
        return Task(
            method=NAME, stage="flower", version=SecureAggregation.version, system={}, parameters=parameters, inputs=inputs
        )  # fmt: skip

    def reply(self, message: Message, result: Output) -> RecordDict:
        """The client's part, as it came."""
        return unpack(result)


def secagg_plus(
    grid: FlowerGrid,
    workflow: SecAggPlusWorkflow,
    strategy: Strategy,
    tensors: Mapping[str, np.ndarray],
    rounds: int,
) -> tuple[dict[str, np.ndarray], History]:
    """Rounds of training by one of Flower's legacy strategies, over a grid that answers by `SecAggPlusTraining`.

    Returns the parameters after the last round, and Flower's history. Raises `TaskError` where a round gave no sum:
    too few parties were left, or their answers were refused.
    """
    manager = SimpleClientManager()
    for number in grid.get_node_ids():
        manager.register(GridClientProxy(number, grid, grid.run.run_id))
    state = FlowerContext(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={})
    context = LegacyContext(state, strategy=strategy, client_manager=manager)
    start = compat.parameters_to_arrayrecord(ndarrays_to_parameters(list(tensors.values())), True)
    context.state.array_records[MAIN_PARAMS_RECORD] = start
    for number in range(1, rounds + 1):
        before = context.state.array_records[MAIN_PARAMS_RECORD]
        context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: number})
        workflow(grid, context)
        if context.state.array_records[MAIN_PARAMS_RECORD] is before:
            raise TaskError(f"round {number} of secure aggregation gave no sum; Flower's log, and the tasks, say why.")
    after = parameters_to_ndarrays(compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True))
    return dict(zip(tensors, after, strict=True)), context.history
