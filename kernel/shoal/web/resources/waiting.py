"""What answers that take long wait for: the answer, or the caller's leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from falcon.asgi import Request

from shoal.web.exchange import KEY, Exchange

T = TypeVar("T")


def exchange_of(req: Request) -> Exchange:
    """What the edge knows of this request."""
    exchange: Exchange = req.scope[KEY]
    return exchange


async def unless_left(req: Request, wanted: Coroutine[Any, Any, T]) -> T | None:
    """What is waited for, and raises what that raises; None once the caller has left."""
    waiting = asyncio.ensure_future(wanted)
    leaving = asyncio.ensure_future(exchange_of(req).disconnected())
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        leaving.cancel()
