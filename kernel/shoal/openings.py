"""Starting and stopping the components of one server, each within its time.

A store, an agent, an authenticator, networking, an ingress, a policy or resources that do not start end the start:
without them the server would lose, open or misdirect something. An observer or a renewal that does not start is left
out, and tried again until it does. Runtimes are started by the lifecycle, which goes on without one that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from shoal.config.settings import PluginsSettings
from shoal.errors import ConfigError
from shoal.kit.backoff import Backoff
from shoal.plugin.calls import ComponentFailure, bounded
from shoal.plugin.components import Part

log = structlog.get_logger("shoal.app")

BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds between two tries to start a component that is left out meanwhile."""
OPTIONAL: Final = frozenset({"observer", "renewal"})
"""Families without which a server does all that it promises of sandboxes."""


class Openings:
    """Which components are open.

    Args:
        down: ``id()`` of components that are not called: those that have not started.

    Attributes:
        away: why a component is not open, by `Part.key`; those that are, and those that were never tried, are not here.
    """

    def __init__(self, settings: PluginsSettings, down: set[int]) -> None:
        self._settings = settings
        self._down = down
        self._opened: list[Part] = []
        self._retries: list[asyncio.Task[None]] = []
        self.away: dict[str, str] = {}

    async def open_all(self, parts: Sequence[Part]) -> None:
        """Start these, one after another. Raises ConfigError for one that the server must not start without."""
        for part in parts:
            if part.family in OPTIONAL:
                await self._offer(part)
            else:
                try:
                    await self.open(part)
                except ComponentFailure as error:
                    raise ConfigError(str(error)) from error

    async def open(self, part: Part) -> None:
        """Start one, after stopping what an earlier try left. Raises ConfigError, ComponentFailure."""
        if part in self._opened:
            await self.close([part])
        self._opened.append(part)
        await bounded(part, "start", part.component.start, self._settings.start_timeout_seconds)

    async def close(self, parts: Sequence[Part]) -> None:
        """Stop those of them that were started, the last one first. Never raises."""
        for part in reversed(parts):
            if part in self._opened:
                self._opened.remove(part)
                try:
                    await bounded(part, "stop", part.component.stop, self._settings.stop_timeout_seconds)
                except (ComponentFailure, ConfigError) as error:
                    log.error("a component did not stop", plugin=part.plugin, error=str(error))

    async def give_up(self) -> None:
        """Try nothing again."""
        for task in self._retries:
            task.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)
        self._retries.clear()

    async def _offer(self, part: Part) -> None:
        """Start one that the server can do without; if it does not start, go on trying behind the caller."""
        self._down.add(id(part.component))
        if not await self._opens(part):
            retry = asyncio.get_running_loop().create_task(self._insist(part), name=f"start {part.key}")
            self._retries.append(retry)

    async def _insist(self, part: Part) -> None:
        backoff = Backoff(BACKOFF_FIRST, BACKOFF_MAX)
        while True:
            await asyncio.sleep(backoff.next())
            try:
                if await self._opens(part):
                    log.info("a component has started after all", plugin=part.plugin, component=part.key)
                    return
            except ConfigError as error:
                self.away[part.key] = str(error)

    async def _opens(self, part: Part) -> bool:
        """Whether it starts; a new reason why it does not is logged. Raises ConfigError."""
        try:
            await self.open(part)
        except ComponentFailure as error:
            if self.away.get(part.key) != error.reason:
                log.error("a component did not start, and is tried again", plugin=part.plugin, error=str(error))
            self.away[part.key] = error.reason
            return False
        self._down.discard(id(part.component))
        self.away.pop(part.key, None)
        return True
