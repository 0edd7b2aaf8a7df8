"""Waiting for what must come; the bounds only turn a hang into a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 90.0


def eventually(
    condition: Callable[[], Any],
    seconds: float = PATIENCE,
    told: Callable[[], object] = lambda: "nothing more is known",
) -> None:
    """Return once ``condition()`` is true; ``told()`` goes with the failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come: {told()}"
        time.sleep(0.02)


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """The same on the event loop, for what the loop will bring about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to offer
            await asyncio.sleep(0.005)
