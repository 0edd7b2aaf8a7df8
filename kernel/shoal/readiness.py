"""Readiness: whether every component could do its work within the last second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from shoal.errors import ConfigError
from shoal.plugin.calls import ComponentFailure, bounded
from shoal.plugin.components import Part

MAX_AGE = 1.0
"""An answer is kept this long, so that probes do not become load."""
PING_TIMEOUT = 5.0


class Readiness:
    """Pings components, side by side, at most once a second.

    Args:
        away: why a component is not open, which is then not pinged; None if it is.
    """

    def __init__(self, parts: Sequence[Part], away: Callable[[Part], str | None] = lambda part: None) -> None:
        self._parts = parts
        self._away = away
        self._asked_at = float("-inf")
        self._answer: dict[str, str | None] = {}
        self._lock = asyncio.Lock()

    async def __call__(self) -> dict[str, str | None]:
        """Each component's key (`Part.key`), and why it cannot work now; None if it can."""
        async with self._lock:
            if time.monotonic() - self._asked_at > MAX_AGE:
                answers = await asyncio.gather(*map(self._ask, self._parts))
                self._answer = {part.key: answer for part, answer in zip(self._parts, answers, strict=True)}
                self._asked_at = time.monotonic()
            return self._answer

    async def _ask(self, part: Part) -> str | None:
        away = self._away(part)
        if away is not None:
            return away
        try:
            await bounded(part, "ping", part.component.ping, PING_TIMEOUT)
        except ComponentFailure as error:
            return error.reason
        except ConfigError as error:
            return str(error)
        return None
