"""What a machine has, and whether that is enough for what a task needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from manybody.core.task import Needs
from manybody.store.held import names

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """Cores that tasks may use, GPUs, and bytes of memory: of a whole machine, or those of it that are free.

    `data` are the names of those that it holds (`store.held`).
    """

    cores: int
    gpus: int
    memory_bytes: int
    data: frozenset[str] = frozenset()

    @classmethod
    def here(cls, cores: int) -> Machine:
        """This machine, of which `cores` are used."""
        return cls(cores, len(devices()), psutil.virtual_memory().total, names())

    def lacks(self, needs: Needs) -> str:
        """What is needed that there is not, and what there is; empty where there is enough."""
        short = [
            ("cores", needs.cores, self.cores, 1),
            ("GPUs", needs.gpus, self.gpus, 1),
            ("GiB of memory", needs.memory_bytes, self.memory_bytes, GIB),
        ]
        told = [f"{want / unit:g} {name}, has {have / unit:g}" for name, want, have, unit in short if want > have]
        return ", ".join([*told, *(f"the held data {name}" for name in needs.data if name not in self.data)])

    def less(self, needs: Needs) -> Machine:
        """What is left beside a task."""
        return Machine(self.cores - needs.cores, self.gpus - needs.gpus, self.memory_bytes - needs.memory_bytes, self.data)

    def beside(self, tasks: Iterable[Needs]) -> Machine:
        """What is left of GPUs and memory beside tasks; cores are not counted, because they can be shared for a while."""
        free = self
        for needs in tasks:
            free = free.less(needs.model_copy(update={"cores": 0}))
        return free


def devices() -> tuple[str, ...]:
    """The NVIDIA devices that the driver of this machine tells of, by model."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for path in files for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return tuple(line.partition(":")[2].strip() for line in lines if line.startswith("Model:"))
