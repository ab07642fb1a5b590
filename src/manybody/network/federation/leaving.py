"""Checkpoints on their way from a node to its gateway: one at a time, the newest, and nothing waits for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from manybody.core.protocols import Event
from manybody.network.federation.authority import sign
from manybody.network.federation.client import AwayError, Client, RefusedByGatewayError
from manybody.network.federation.membership import Joined
from manybody.network.federation.protocol import Accepted, Checkpoint, Order, checkpoint_claim
from manybody.store.objects import ObjectStore


@dataclass
class Leaving:
    """The checkpoints of one attempt. Whatever becomes of one, its copy here is removed: the attempt itself goes on."""

    client: Client
    objects: ObjectStore
    joined: Joined
    order: Order
    limit: int
    _waiting: Event | None = None
    _sending: asyncio.Task[None] | None = field(default=None, repr=False)

    def offer(self, event: Event) -> None:
        """Send a checkpoint that the attempt has stored here, or put it in the place of one that waits to be sent."""
        if self._waiting is not None:
            self.objects.remove(self._waiting.result)
        self._waiting = event
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())

    async def flush(self) -> None:
        """Wait until all that was offered has been sent, or could not be."""
        if self._sending is not None:
            await self._sending

    def stop(self) -> None:
        """The attempt has ended: what has not been sent is needed no more."""
        if self._sending is not None:
            self._sending.cancel()
        if self._waiting is not None:
            self.objects.remove(self._waiting.result)
            self._waiting = None

    async def _send_all(self) -> None:
        while (event := self._waiting) is not None:
            self._waiting = None
            try:
                if event.nbytes <= self.limit:
                    await self._send(event)
            except (AwayError, RefusedByGatewayError):
                continue  # the next one may do; whether the attempt is still ours is for its heartbeats to learn
            finally:
                self.objects.remove(event.result)

    async def _send(self, event: Event) -> None:
        """The bytes first, then the signed word of them."""
        attempt, task, name = event.attempt, event.task, self.joined.name
        await self.client.send(attempt, event.result, self.objects.path(event.result))
        said = checkpoint_claim(attempt, task, event.result, name, self.client.version)
        message = Checkpoint(
            attempt=attempt, task=task, checkpoint=event.result, worker=event.worker,
            signature=sign(self.joined.key, said), progress=event.progress,
        )  # fmt: skip
        await self.client.ask("/v1/checkpoint", message, Accepted)
