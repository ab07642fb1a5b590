"""Messages out of requests, strictly parsed, and into answers."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from manybody.network.federation.guard import RefusedError
from manybody.network.federation.protocol import VERSIONS, write

T = TypeVar("T")


async def parsed(request: Request, schema: TypeAdapter[T]) -> T:
    """The message in a request, strictly parsed."""
    try:
        body = await request.body()
    except ClientDisconnect:
        raise RefusedError(400, "The connection ended before the message did.") from None
    try:
        return schema.validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "message"
        raise RefusedError(422, f"{place}: {first['msg']} (one of {error.error_count()} problems).") from error


def answer(message: BaseModel, version: int = VERSIONS[-1]) -> Response:
    """An answer to somebody who speaks `version`."""
    return Response(write(message, version), media_type="application/json")
