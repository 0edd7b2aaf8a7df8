"""The listener, and an end that lets running requests finish."""

from __future__ import annotations

import asyncio
import socket

from shoal_agent.http.app import App
from shoal_agent.http.connection import Connection
from shoal_agent.listening import BACKLOG


class Server:
    """Listens on a socket until it is stopped."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.stopping = False

    async def start(self, listener: socket.socket) -> None:
        """`listener` is closed by `stop`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._app, self), sock=listener, backlog=BACKLOG)

    async def stop(self, grace: float) -> None:
        """Accepts nothing more, lets requests run on for `grace` seconds, then closes every connection."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        busy = [c.task for c in self.connections if c.busy and c.task is not None]
        if busy and grace > 0:
            await asyncio.wait(busy, timeout=grace)
        for connection in tuple(self.connections):
            if connection.task is not None:
                connection.task.cancel()
            connection.transport.abort()
