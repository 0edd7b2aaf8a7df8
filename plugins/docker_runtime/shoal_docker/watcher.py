"""The engine's events, as changes of workloads.

An event only says that something happened to a container; what is reported is how the sandbox looks then. One look per
sandbox is under way at a time, and events that arrive meanwhile ask for one more, so that a burst costs two looks and a
container that the engine is slow to describe holds up nobody else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import structlog

from shoal.errors import ShoalError
from shoal.models.workload import Workload, WorkloadGone
from shoal_docker import labels
from shoal_docker.census import Census
from shoal_docker.engine import Engine, EngineError
from shoal_docker.observe import Family

log = structlog.get_logger("shoal.docker")

Change = Workload | WorkloadGone
FILTERS: Final = json.dumps(
    {
        "type": ["container", "network"],
        "event": [
            "create",
            "start",
            "restart",
            "rename",
            "die",
            "died",
            "oom",
            "pause",
            "unpause",
            "destroy",
            "remove",
        ],
    }
)
"""Podman filters by words of its own: ``remove`` and ``died`` are Docker's ``destroy`` and ``die``."""
_GONE: Final = frozenset({"destroy", "remove"})
_OWN_DOING: Final = frozenset({"create", "start", "pause", "unpause", *_GONE})
"""What this server's own operations cause; while one is under way its result says the same."""


class Watcher:
    """Feeds one stream of changes at a time; every call of `changes` makes another.

    Args:
        networks: names of the engine's networks, kept up to date.
        seen: called with every sandbox that an event was about.
    """

    def __init__(
        self, engine: Engine, census: Census, networks: set[str], seen: Callable[[list[Family]], None]
    ) -> None:
        self._engine = engine
        self._seen = seen
        self._census = census
        self._networks = networks
        self.busy: set[str] = set()
        """Sandboxes that this server is creating, pausing or resuming."""
        self.leaving: set[str] = set()
        """Sandboxes that this server is removing."""

    async def changes(self) -> AsyncIterator[Change]:
        """Changes from now on; ends when the engine ends the stream, raises Unavailable when it breaks off."""
        params = {"filters": FILTERS}
        if not self._engine.remote:
            params["since"] = f"{time.time():.6f}"  # the stream opens a moment later
        found: asyncio.Queue[Change | None] = asyncio.Queue()
        looks: dict[str, asyncio.Task[None]] = {}
        touched: dict[str, set[str]] = {}  # by sandbox, the containers whose events have not been looked into

        async def look(sandbox_id: str) -> None:
            try:
                while containers := touched.pop(sandbox_id, None):
                    change = await self._look(sandbox_id, containers)
                    if change is not None:
                        found.put_nowait(change)
            finally:
                del looks[sandbox_id]

        async def listen() -> None:
            try:
                async with aclosing(self._engine.stream("/events", params=params)) as events:
                    async for event in events:
                        sandbox_id = self._concerned(event)
                        if sandbox_id is None:
                            continue
                        if sandbox_id in self.leaving:
                            found.put_nowait(WorkloadGone(id=sandbox_id))
                            continue
                        touched.setdefault(sandbox_id, set()).add(str(event["Actor"].get("ID") or ""))
                        if sandbox_id not in looks:
                            looks[sandbox_id] = asyncio.create_task(look(sandbox_id))
            finally:
                found.put_nowait(None)

        listening = asyncio.create_task(listen())
        try:
            while (change := await found.get()) is not None:
                yield change
            await listening
        finally:
            for task in (listening, *looks.values()):
                task.cancel()
            await asyncio.gather(listening, *looks.values(), return_exceptions=True)

    def _concerned(self, event: dict[str, Any]) -> str | None:
        """The sandbox that should be looked at because of the event; None for none."""
        action, actor = str(event.get("Action") or event.get("status") or ""), event.get("Actor") or {}
        attributes: dict[str, str] = actor.get("Attributes") or {}
        if event.get("Type") == "network":
            self._note_network(action, attributes.get("name", ""))
            return None
        sidecar_of = attributes.get(labels.SIDECAR_FOR) or attributes.get(labels.EGRESS_SIDECAR_FOR)
        sandbox_id = sidecar_of or attributes.get(labels.ID)
        if not sandbox_id:
            return None
        if action in ("start", "restart"):
            self._census.restarted(str(actor.get("ID") or ""))
        if sandbox_id in self.leaving:
            return sandbox_id if action in _GONE and sidecar_of is None else None
        return None if sandbox_id in self.busy and action in _OWN_DOING else sandbox_id

    def _note_network(self, action: str, name: str) -> None:
        if action == "create":
            self._networks.add(name)
        elif action in _GONE:
            self._networks.discard(name)

    async def _look(self, sandbox_id: str, containers: set[str]) -> Change | None:
        try:
            for container in containers:
                await self._census.settled(container)
            family = await self._census.one(sandbox_id)
            if family.main is None:
                return WorkloadGone(id=sandbox_id)
            self._seen([family])
            return await self._census.workload(family) or WorkloadGone(id=sandbox_id)
        except (ShoalError, EngineError) as error:
            log.warning("a change could not be looked at", sandbox_id=sandbox_id, error=str(error))
            return None  # the next comparison finds it
