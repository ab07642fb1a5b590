"""What a node lends a task, in this process: for tests of stages."""

from __future__ import annotations

from manybody.core.task import Output, Progress


class LocalNode:
    """Implements `core.protocols.Context`: remembers progress and checkpoints, and goes on from the checkpoint `left`.

    After `patience` checkpoints it stops the task, as if killed, by `InterruptedError`.
    """

    device = "cpu"

    def __init__(self, left: Output | None = None, patience: int = 1_000_000, threads: int = 1) -> None:
        self.left, self.patience, self.threads = left, patience, threads
        self.told: list[Progress] = []
        self.kept: list[Output] = []

    def progress(self, progress: Progress) -> None:
        """Add it to `told`."""
        self.told.append(progress)

    def resume(self) -> Output | None:
        """The checkpoint that an earlier attempt left."""
        return self.left

    def keep(self, output: Output) -> None:
        """Add it to `kept`."""
        self.kept.append(output)
        if len(self.kept) == self.patience:
            raise InterruptedError
