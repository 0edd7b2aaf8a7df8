"""What the proxy asks of the lifecycle; addresses come from memory, never from an engine call."""

from __future__ import annotations

from socket import socket
from typing import Literal, Protocol

from shoal.models.workload import Tunnel
from shoal.proxy.asgi import Header


class Directory(Protocol):
    """Where a sandbox's ports are, and who wants to hear that they were used."""

    def address(self, sandbox_id: str, port: int) -> str | Tunnel | None:
        """``host:port[/prefix]`` or the tunnel of a running sandbox's port; None if it takes a wait or an error to say.

        From memory, at once.
        """
        ...

    async def await_address(self, sandbox_id: str, port: int, *, wake: bool = True) -> str | Tunnel:
        """The address, after a bounded wait for a Pending sandbox, or with ``wake`` for one that is paused to resume.

        Raises NotFound, Conflict (not running) and whatever else `ShoalError` the state calls for.
        """
        ...

    async def connect(self, tunnel: Tunnel) -> socket:
        """A connected stream socket that does not block; the caller closes it. Raises OSError and ShoalError."""
        ...

    def upstream_headers(self, sandbox_id: str, port: int) -> list[Header]:
        """The endpoint's own headers. An ``OpenSandbox-Secure-Access`` among them is what callers must present."""
        ...

    def keeps_connections(self, sandbox_id: str, port: int) -> bool:
        """Whether the port is surely that of an agent that keeps connections (`shoal.plugin.interfaces.Agent`)."""
        ...

    def accessed(self, sandbox_id: str, port: int, transport: Literal["http", "websocket"]) -> None:
        """A request is on its way to the port. Returns at once and never raises.

        A WebSocket is reported when it connects and again while messages flow, so that no message is unreported for
        longer than `WEBSOCKET_NEWS_SECONDS` (shoal.plugin.interfaces).
        """
        ...

    def finished(self, sandbox_id: str) -> None:
        """An exchange that `accessed` was called for is over, however it ended. Returns at once and never raises."""
        ...
