"""Ending tasks that talk to Redis: its client may put an error of its own in the place of a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

RETRY_SECONDS = 0.2


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel the tasks, again and again, until every one has ended; returns with none of them running."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=RETRY_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
