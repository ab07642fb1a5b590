"""What the ledger tells: typed, frozen rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import RowMapping

from manybody.core.task import Task

TaskState = Literal["waiting", "running", "finished", "failed"]
AttemptState = Literal["running", "finished", "failed", "lost"]


@dataclass(frozen=True)
class Claim:
    """What became of a claim: `mine` with the new `attempt`; `done` with the `result`; `held` by `holder`, a live run.

    `checkpoint` is the digest of what an earlier attempt left to go on from, empty where there is none.
    """

    state: Literal["mine", "done", "held"]
    attempt: str = ""
    result: str = ""
    holder: str = ""
    checkpoint: str = ""


@dataclass(frozen=True)
class CheckpointRow:
    """The checkpoint of a task: the digest and size of its object, how far it is, and which attempt stored it when."""

    task: str
    digest: str
    nbytes: int
    fraction: float
    attempt: str
    worker: str
    stored: float


@dataclass(frozen=True)
class ResultRow:
    """A result: digests of its task and its bytes, size, seconds of computing, who computed it, and when.

    `inputs` is JSON: the digests of the results that were read, by name; empty where that was not recorded.
    """

    task: str
    result: str
    nbytes: int
    seconds: float
    worker: str
    attempt: str
    finished: float
    provenance: Mapping[str, Any]
    withdrawn: float | None = None
    reason: str = ""
    inputs: str = ""

    @classmethod
    def read(cls, row: RowMapping) -> ResultRow:
        """From a row of results joined with its provenance as `versions`."""
        return cls(
            task=row["task"],
            result=row["digest"],
            nbytes=row["nbytes"],
            seconds=row["seconds"],
            worker=row["worker"],
            attempt=row["attempt"],
            finished=row["finished"],
            provenance=json.loads(row["versions"]),
            withdrawn=row["withdrawn"],
            reason=row["reason"],
            inputs=row["inputs"],
        )


@dataclass(frozen=True)
class AttemptRow:
    """One attempt at a task, by one run; `number` counts the attempts at the task and only ever rises."""

    id: str
    task: str
    run: int
    number: int
    state: AttemptState
    started: float
    ended: float | None
    worker: str
    reason: str


@dataclass(frozen=True)
class TaskRow:
    """A task of a run with its state; `result`, `worker` and `seconds` once finished, `reason` of the last failure."""

    task: Task
    state: TaskState
    attempts: int
    result: str = ""
    worker: str = ""
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class StudyRow:
    """A study that was recorded, as the document it was asked with; `runs` counts its runs."""

    digest: str
    name: str
    title: str
    document: Mapping[str, Any]
    recorded: float
    runs: int

    @classmethod
    def read(cls, row: RowMapping) -> StudyRow:
        """From a row of studies with the count `runs`."""
        return cls(**{**row, "document": json.loads(row["document"])})


@dataclass(frozen=True)
class RunRow:
    """A run of a study: by which process on which host, where its answer lies. `alive` unless it ended or was killed."""

    id: int
    study: str
    name: str
    out: Path
    command: str
    provenance: Mapping[str, Any]
    host: str
    pid: int
    heartbeat: float
    started: float
    ended: float | None
    verdict: str
    certificate: Path | None
    report: Path | None
    alive: bool

    @classmethod
    def read(cls, row: RowMapping, alive: bool) -> RunRow:
        """From a row of runs joined with its study's `name` and its provenance as `versions`."""
        return cls(
            id=row["id"],
            study=row["study"],
            name=row["name"],
            out=Path(row["out"]),
            command=row["command"],
            provenance=json.loads(row["versions"]),
            host=row["host"],
            pid=row["pid"],
            heartbeat=row["heartbeat"],
            started=row["started"],
            ended=row["ended"],
            verdict=row["verdict"],
            certificate=Path(row["certificate"]) if row["certificate"] else None,
            report=Path(row["report"]) if row["report"] else None,
            alive=alive,
        )
