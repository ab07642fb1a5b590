"""What a task needs and what a machine has: compared, counted, and part of no identity."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from manybody.core.task import Needs, Task
from manybody.network.cluster_placement import demand
from manybody.network.federation.backend import refusal
from manybody.network.federation.protocol import Installed, Order, Report, Work, write
from manybody.network.federation.room import Room, machine_of
from manybody.network.machine import Machine

GIB = 2**30
MACHINE = Machine(8, 2, 64 * GIB)


def task(**needs: Any) -> Task:
    return Task(method="toy", stage="add", version="1", system={}, parameters={}, needs=Needs(**needs))


def report(devices: int, memory_gib: int = 64) -> Report:
    methods = {"toy": Installed(version="1", stages=("add",))}
    return Report(workers=4, threads=2, memory_bytes=memory_gib * GIB, devices=("H200",) * devices, methods=methods)


def test_needs_are_no_part_of_the_identity() -> None:
    assert task(gpus=1).digest == task().digest
    assert task(gpus=1).replicated(1).needs.gpus == 1
    with pytest.raises(ValidationError):
        Needs(cores=0)


def test_held_data_are_needed_by_name() -> None:
    holder = Machine(8, 0, GIB, frozenset({"bonn", "graz"}))
    assert holder.less(Needs()).lacks(Needs(data=("bonn",))) == ""
    assert holder.lacks(Needs(data=("bonn", "delft"))) == "the held data delft"
    told = report(0).model_copy(update={"data": ("bonn",)})
    assert Room(machine_of(told), list).admits(task(data=("bonn",)))
    assert not Room(machine_of(told), list).admits(task(data=("delft",)))
    assert "the held data delft" in refusal(task(data=("delft",)), [told])
    assert "data" not in write(told, 1)


def test_what_is_lacking_is_named_with_what_there_is() -> None:
    assert MACHINE.lacks(Needs(cores=8, gpus=2, memory_bytes=64 * GIB)) == ""
    assert MACHINE.lacks(Needs(gpus=3, memory_bytes=65 * GIB)) == "3 GPUs, has 2, 65 GiB of memory, has 64"


def test_a_node_gets_no_more_than_it_has_room_for() -> None:
    """GPUs and memory are counted over what it holds and what it is being given; cores it shares out itself."""
    room = Room(MACHINE, lambda: [Needs(gpus=1, memory_bytes=10 * GIB)])
    assert not room.admits(task(gpus=2))
    assert room.admits(task(gpus=1, memory_bytes=40 * GIB))
    assert not room.admits(task(gpus=1))
    assert not room.admits(task(memory_bytes=20 * GIB))
    assert room.admits(task(cores=8))
    assert not room.admits(task(cores=9))


def test_what_no_node_has_is_refused_with_the_closest() -> None:
    assert refusal(task(gpus=1), [report(0), report(1)]) == ""
    assert refusal(task(gpus=1), []) == "", "no node has come yet to tell"
    assert "1 GPUs, has 0" in refusal(task(gpus=1), [report(0)])


def test_a_cluster_is_asked_for_them() -> None:
    wanted = demand(task(cores=4, gpus=2, memory_bytes=GIB), 1)
    assert wanted.amounts == {"cores": 4.0, "gpu": 2.0, "memory": float(GIB)}


def test_a_node_of_version_1_hears_nothing_of_needs() -> None:
    order = Order(attempt="a", task=task(gpus=1), inputs={}, avoid=(), lease_s=1.0, deadline_s=1.0)
    assert "needs" not in write(Work(orders=(order,)), 1)
    assert "needs" in write(Work(orders=(order,)), 2)
