"""What conductor and worker tell each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from manybody.core.task import Progress, Task
from manybody.network.messages import (
    BackendError,
    Checkpointed,
    Failed,
    Finished,
    Progressed,
    Ready,
    Report,
    Run,
    read_order,
    read_report,
    write,
)

TASK = Task(method="m", stage="s", version="1", system={"t": 0.1}, parameters={"x": [1, 2.5, "é\n"]}, seed=2**63, cost=7.5)


def test_an_order_arrives_as_it_was_given() -> None:
    order = Run(attempt="a", task=TASK, inputs={"state": "ab" * 32})
    line = write(order)
    assert line.count(b"\n") == 1
    assert read_order(line) == order
    assert read_order(line).task.digest == TASK.digest
    assert read_order(line).task.cost == 7.5


@pytest.mark.parametrize(
    "report",
    [
        Ready(),
        Progressed(attempt="a", progress=Progress(0.5, 12.0, "tau", 1e-7, 1e-4)),
        Progressed(attempt="a", progress=Progress(0.5, conserved=float("inf"))),
        Checkpointed(attempt="a", digest="ab" * 32, nbytes=10, progress=Progress(0.5, conserved=float("inf"))),
        Finished(attempt="a", result="ab" * 32, nbytes=10, seconds=0.25),
        Failed(attempt="a", reason="line one\nline two", seconds=0.25),
    ],
)
def test_a_report_arrives_as_it_was_given(report: Report) -> None:
    assert read_report(write(report)) == report


@pytest.mark.parametrize("line", [b"", b"garbage", b'{"kind": "dance"}', b'{"kind": "finished", "attempt": "a"}', b"[" * 10_000])
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(BackendError, match="no message of this version"):
        read_report(line)
    with pytest.raises(ValidationError):
        read_order(line)
