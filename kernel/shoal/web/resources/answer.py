"""How responders answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from falcon.asgi import Request, Response

from shoal.web.exchange import KEY, Exchange

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def json_bytes(resp: Response, content: bytes) -> None:
    """Answer with JSON that is encoded already."""
    resp.data = content
    resp.content_type = "application/json"


def json(resp: Response, value: Any) -> None:
    """Answer with a value as JSON; a Secret in it is an error, not a leak."""
    json_bytes(resp, _encoder.encode(value))


def text(resp: Response, content: str) -> None:
    """Answer with plain text."""
    resp.data = content.encode("utf-8", "replace")
    resp.content_type = "text/plain; charset=utf-8"


def exchange(req: Request) -> Exchange:
    """What the edge knows of this request."""
    found: Exchange = req.scope[KEY]
    return found


async def unless_left(req: Request, wanted: Coroutine[Any, Any, T]) -> T | None:
    """What is waited for, and raises what that raises; None once the caller has left."""
    waiting = asyncio.ensure_future(wanted)
    leaving = asyncio.ensure_future(exchange(req).disconnected())
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        leaving.cancel()
