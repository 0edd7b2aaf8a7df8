"""The composition: one object that wires configuration, plugins, store, lifecycle and web together, by hand.

Nothing here is global, so two of them live in one process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

import shoal
from shoal.config.loader import Loaded
from shoal.lifecycle.facade import SandboxLifecycle
from shoal.logs import log_access
from shoal.openings import Openings
from shoal.plugin.components import Part
from shoal.plugin.manager import PluginManager
from shoal.proxy import HttpProxy, Leaving
from shoal.proxy.websocket import WebSocketProxy
from shoal.readiness import Readiness
from shoal.stalls import StallWatch
from shoal.web.app import build, own_resources
from shoal.web.entrance import Entrance
from shoal.web.guard import refuse_open_start
from shoal.web.policing import PolicyGuard
from shoal.web.strangers import Strangers
from shoal.web.table import RouteTable

log = structlog.get_logger("shoal.app")


class Shoal:
    """A configured server without a port: `start` it, hand `asgi` to an ASGI server, `stop` it.

    An ASGI server that speaks the lifespan protocol (uvicorn, hypercorn) starts and stops it by itself. WebSockets to
    sandboxes, and the bounds of ``[server]`` on connections and heads, come with ``shoal serve`` alone.

    Args:
        loaded: the configuration file, parsed.
        plugins: plugin objects by name, besides the installed ones; for tests and for embedding.
        environ: the environment that the configuration may refer to; the process's own by default.

    Raises ConfigError for everything that is wrong with the configuration or its plugins.
    """

    def __init__(
        self, loaded: Loaded, plugins: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        manager = PluginManager(loaded, plugins)
        self.settings = manager.settings
        self.lifecycle = SandboxLifecycle(manager.settings, manager.register)
        self._warnings = [*manager.warnings, *manager.slow]
        components = self.lifecycle.components
        self._proxy = HttpProxy(self.lifecycle.reach, self.settings.proxy, eip=self.settings.server.eip)
        self.lifecycle.observe(Leaving(self._proxy))
        self._sockets = WebSocketProxy(self.lifecycle.reach, self.settings.proxy)
        parts = components.all()
        self._runtimes = {part.component.name: part for part in parts if part.family == "runtime"}
        self._before = [part for part in parts if part.family not in ("renewal", "runtime")]
        self._after = [part for part in parts if part.family == "renewal"]
        self._stalls = StallWatch(parts)
        self._openings = Openings(self.settings.plugins, components.down)
        self._authenticators = components.authenticators
        readiness = Readiness(parts, self._why_away)
        own = own_resources(self.lifecycle, self.settings, readiness, shoal.__version__)
        table = RouteTable([*own, *components.resources], components.plugins)
        entrance = Entrance(
            components.authenticators,
            components.ingresses,
            strangers=None if components.authenticators else Strangers.of(self.settings.server),
            guard=PolicyGuard(components.policies, self.lifecycle, components.plugins) if components.policies else None,
            public=table.public,
            plugins=components.plugins,
        )
        self.asgi = build(
            table,
            entrance,
            proxy=self._proxy,
            sockets=self._sockets,
            access=log_access,
            lifespan=self._lifespan,
        )
        self._started = False

    async def start(self) -> None:
        """Open everything in order and take up what the last process left.

        Raises ConfigError, before anything is opened if the server would be open to the network, or ShoalError.
        """
        self._started = True
        self._stalls.start()
        for warning in self._warnings:
            log.warning(warning)
        refuse_open_start(self.settings, self._authenticators, self._environ)
        for part in (*self._before, *self._runtimes.values(), *self._after):
            part.component.check_config()
        try:
            await self._openings.open_all(self._before)
            await self.lifecycle.start(lambda runtime: self._openings.open(self._runtimes[runtime.name]))
            await self._openings.open_all(self._after)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close everything in reverse order; sandboxes run on. Also after a failed start."""
        self._started = False
        patience = float(self.settings.server.timeout_graceful_shutdown or 5)
        await self._sockets.aclose(patience)
        await self._openings.give_up()
        await self._openings.close(self._after)
        await self._proxy.aclose()
        await self.lifecycle.stop(patience)
        await self._openings.close([*self._before, *self._runtimes.values()])
        self._stalls.stop()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        """What an ASGI server's start-up and shut-down do; nothing where `start` was called already."""
        if self._started:
            yield
            return
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    def _why_away(self, part: Part) -> str | None:
        if part.family == "runtime":
            return self.lifecycle.away(part.component.name)
        return self._openings.away.get(part.key)
