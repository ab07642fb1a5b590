"""Checkpoints at the gateway: what a node leaves of a long task, so that another goes on from there if it is lost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from fastapi import Request
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from starlette.responses import Response

from manybody.network.federation.authority import verify
from manybody.network.federation.exchange import answer, parsed
from manybody.network.federation.guard import MEMBER, VERSION, RefusedError
from manybody.network.federation.protocol import Accepted, Checkpoint, checkpoint_claim
from manybody.network.federation.writer import Writer
from manybody.store import handover
from manybody.store.members import Member
from manybody.store.objects import ObjectStore


@dataclass(frozen=True)
class Checkpoints:
    """Takes checkpoints of at most `limit` bytes, of each attempt one every `every_s` seconds."""

    objects: ObjectStore
    limit: int
    every_s: float
    writer: Writer

    async def keep(self, request: Request) -> Response:
        """Note a checkpoint that is in the store: signed, of this attempt, by the holder of its lease."""
        said = await parsed(request, TypeAdapter(Checkpoint))
        member: Member = request.scope[MEMBER]
        version: int = request.scope[VERSION]
        left = await asyncio.to_thread(self._verify, said, member, version)
        kept = await self.writer.do(lambda connection: handover.keep(connection, member.id, left, self.every_s))
        if kept.unneeded:
            await asyncio.to_thread(self.objects.remove, kept.unneeded)
        if kept.state == "early":
            raise RefusedError(429, f"Expected a checkpoint of an attempt every {self.every_s:g} s at most; got more.")
        if kept.state == "not held":
            raise RefusedError(409, f"Attempt {said.attempt} is not leased to {member.name}, or leaves no checkpoints. Drop it.")
        return answer(Accepted())

    def _verify(self, said: Checkpoint, member: Member, version: int) -> handover.Left:
        """A checkpoint that is what the message says it is. One that is too large is removed at once."""
        claim = checkpoint_claim(said.attempt, said.task, said.checkpoint, member.name, version)
        if not verify(member.certificate, claim, said.signature):
            raise RefusedError(422, f"Expected the signature of {member.name} over this checkpoint; it does not verify.")
        nbytes = self.objects.size(said.checkpoint)
        if nbytes is None:
            raise RefusedError(404, f"Expected the checkpoint {said.checkpoint} to be stored first. Send it to /v1/objects.")
        # No result says so of itself: what passes here may be removed once the attempt has got further.
        if self._belongs_to(said.checkpoint) != (said.task, said.attempt):
            raise RefusedError(422, f"Expected a checkpoint of attempt {said.attempt}; {said.checkpoint} is something else.")
        if nbytes > self.limit:
            self.objects.remove(said.checkpoint)
            raise RefusedError(413, f"Expected a checkpoint of at most {self.limit} bytes; got {nbytes}.")
        fraction = said.progress.fraction if said.progress else 0.0
        return handover.Left(said.attempt, said.task, said.checkpoint, nbytes, fraction, said.worker, said.signature)

    def _belongs_to(self, digest: str) -> tuple[str, str]:
        """The task and the attempt that a checkpoint is of, as its document says; empty where it does not."""
        try:
            with safe_open(self.objects.path(digest), framework="numpy") as file:
                document = json.loads((file.metadata() or {}).get("document", "{}"))
        except (SafetensorError, FileNotFoundError):  # removed meanwhile: its attempt has ended
            return "", ""
        return str(document.get("checkpoint_of", "")), str(document.get("attempt", ""))
