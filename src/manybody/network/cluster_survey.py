"""A survey of a cluster: every Dask worker is asked what it has and does now, by whichever runs."""

from __future__ import annotations

import os
import time
from typing import Any

from distributed import Client, Security, Worker

from manybody.network.addresses import TLS_FOLDER
from manybody.network.cluster_agent import PLUGIN, Agent, enlist
from manybody.network.cluster_security import find_security
from manybody.network.federation.protocol import Report
from manybody.network.messages import BackendError
from manybody.network.survey import NodeView, Running
from manybody.store.home import Home

PATIENCE_S = 20.0  # for a scheduler to answer


def cluster_view(address: str, home: Home, measured: bool) -> list[NodeView]:
    """The Dask workers of the scheduler at `address`; those that are not measured yet measure themselves with `measured`.

    Raises `BackendError` where no scheduler answers, `InputError` where there are no certificates.
    """
    address = address.replace("dask://", "tls://", 1)
    security = None if address.startswith("tcp://") else find_security(home.path / TLS_FOLDER)
    try:
        with _client(address, security) as client:
            asked = client.run(survey, measured, on_error="return")
            told = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, ValueError) as error:
        raise BackendError(f"No connection to the scheduler at {address}: {error}. Is it running?") from error
    return [_node_view(worker, told.get(worker, {}), answer) for worker, answer in sorted(asked.items())]


def _client(address: str, security: Security | None) -> Client:
    return Client(address, security=security, timeout=PATIENCE_S, set_as_default=False, name="manybody nodes")  # type: ignore[no-untyped-call]  # the package's types end here


def _node_view(address: str, told: dict[str, Any], answer: Any) -> NodeView:
    name = str(told.get("name", address))
    if not isinstance(answer, str):
        return NodeView(name=name, address=address, state="no node", reason=f"{type(answer).__name__}: {answer}")
    silent = round(max(0.0, time.time() - float(told.get("last_seen", time.time()))), 1)
    view = NodeView.model_validate_json(answer)
    return view.model_copy(update={"name": name, "address": address, "heard_s": silent})


async def survey(measured: bool, dask_worker: Worker) -> str:
    """What a Dask worker has and does now, a `NodeView` as JSON; it becomes a node if it is none yet."""
    told = Report.model_validate_json(await enlist(dask_worker))
    agent = dask_worker.plugins[PLUGIN]
    assert isinstance(agent, Agent), "it has just been installed"
    speed = await agent.speed(measured)
    cores = dask_worker.state.total_resources.get("cores", dask_worker.state.nthreads)
    now = time.monotonic()
    running = tuple(Running(task=label, since_s=round(now - since, 1)) for label, since in agent.running())
    view = NodeView(
        name=agent.node, state="running", workers=int(cores), threads=1,
        memory_bytes=dask_worker.memory_manager.memory_limit or told.memory_bytes, devices=told.devices, load=os.getloadavg()[0],
        speed=speed, methods={name: method.version for name, method in told.methods.items()}, running=running,
    )  # fmt: skip
    return view.model_dump_json()
