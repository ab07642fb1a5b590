"""Checkpoints of the attempts of a run: recorded as they come, removed when nobody needs them any more."""

from __future__ import annotations

from dataclasses import dataclass, field

from manybody.core.protocols import Event
from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore


@dataclass
class Checkpoints:
    """The newest checkpoint of each task that is under way, by task; empty where there is none yet."""

    ledger: Ledger
    objects: ObjectStore
    _newest: dict[str, str] = field(default_factory=dict)

    def begin(self, task: str, checkpoint: str) -> None:
        """An attempt goes on from a checkpoint, or from the start where that is empty."""
        self._newest[task] = checkpoint

    def keep(self, event: Event) -> None:
        """Record a checkpoint; the one before it, or this one if its attempt is no longer current, is not needed."""
        fraction = event.progress.fraction if event.progress else 0.0
        unneeded = event.result
        if self.ledger.keep_checkpoint(event.attempt, event.result, event.nbytes, fraction, event.worker):
            unneeded, self._newest[event.task] = self._newest[event.task], event.result
        self._discard(unneeded)

    def finish(self, task: str) -> None:
        """The task has a result."""
        self._discard(self._newest.pop(task))

    def distrust(self, task: str) -> None:
        """The task failed by itself, which may lie in what it went on from: the next attempt begins anew."""
        self.ledger.forget_checkpoint(task, self._newest[task])
        self._discard(self._newest.pop(task))

    def _discard(self, checkpoint: str) -> None:
        if checkpoint and not self.ledger.is_needed(checkpoint):
            self.objects.remove(checkpoint)
