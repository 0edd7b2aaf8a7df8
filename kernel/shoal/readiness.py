"""Readiness: whether every component could do its work within the last second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from shoal.errors import ShoalError
from shoal.plugin.components import Part
from shoal.plugin.interfaces import Component

FRESH_SECONDS = 1.0
"""An answer is kept this long, so that probes do not become load."""
PATIENCE_SECONDS = 5.0


class Readiness:
    """Pings components, side by side, at most once a second."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._asked_at = float("-inf")
        self._answer: dict[str, str | None] = {}
        self._lock = asyncio.Lock()

    async def __call__(self) -> dict[str, str | None]:
        """Each component's key (`Part.key`), and why it cannot work now; None if it can."""
        async with self._lock:
            if time.monotonic() - self._asked_at > FRESH_SECONDS:
                answers = await asyncio.gather(*(_ping(part.component) for part in self._parts))
                self._answer = {part.key: answer for part, answer in zip(self._parts, answers, strict=True)}
                self._asked_at = time.monotonic()
            return self._answer


async def _ping(component: Component) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await component.ping()
    except TimeoutError:
        return f"no answer within {PATIENCE_SECONDS:g} s"
    except ShoalError as error:
        return error.message
    except Exception as error:
        return f"failed: {type(error).__name__}"
    return None
