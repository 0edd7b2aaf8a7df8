"""The sandbox's handshake: a connection of its own, for an upgraded one is never reused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from shoal.errors import BadGateway
from shoal.models.codes import BACKEND_RESPONSE_FAILED
from shoal.proxy.failures import ServiceFailed, connection_failed, response_failed, timed_out
from shoal.proxy.pool import open_connection
from shoal.proxy.response import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from shoal.proxy.asgi import Header
    from shoal.proxy.pool import Connect, Destination
    from shoal.proxy.websocket.leg import Leg


class UpstreamRefused(ServiceFailed):
    """The sandbox's service answered, but not with a WebSocket."""

    def __init__(self, answered: int) -> None:
        super().__init__(BACKEND_RESPONSE_FAILED, f"refused the WebSocket with HTTP status {answered}")


class Upstream(asyncio.Protocol):
    """A connection that was asked to become a WebSocket; `answered` says that it has, `switch` hands it on."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[Header] = []
        self._read = 0
        self._early = b""
        self._lost = False
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[list[Header]] = asyncio.get_running_loop().create_future()

    async def answered(self) -> list[Header]:
        """The headers of the 101. Raises UpstreamRefused, or BadGateway for what is no answer."""
        return await self._answer

    def switch(self, leg: Leg) -> bytes:
        """From now on the connection is the leg's; returns what came beyond the handshake."""
        leg.join(self._transport)
        if self._lost:
            leg.connection_lost(None)
        return self._early

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Read the answer's head; keep what follows it."""
        if self._answer.done():
            self._early += data
            return
        self._read += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._early = data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self._fail(response_failed("did not answer in HTTP"))
        if self._read > MAX_HEAD_BYTES:
            self._fail(response_failed("sent headers of more than 64 KiB"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended before it answered, or before anybody took it over."""
        self._lost = True
        self._fail(response_failed())

    def on_header(self, name: bytes, value: bytes) -> None:
        """As the parser finds them."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The final head, or an interim one."""
        status = self._parser.get_status_code()
        if status == 101:
            self._answer.set_result(self._headers)
        elif status >= 200:
            self._fail(UpstreamRefused(status))
        self._headers = []

    def _fail(self, error: BadGateway) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


async def connect(place: Destination, head: bytes, limit: float, tunnels: Connect) -> tuple[Upstream, list[Header]]:
    """Open a connection, send the request ``head`` on it and wait for a 101.

    Args:
        limit: seconds for all of it.
        tunnels: how a destination that is a tunnel is connected.

    Returns it, with the answer's headers. Raises BadGateway, UpstreamRefused among them, and GatewayTimeout.
    """
    upstream: Upstream | None = None
    try:
        async with asyncio.timeout(limit):
            upstream = await open_connection(place, lambda: Upstream(head), tunnels)
            return upstream, await upstream.answered()
    except BaseException as error:
        if upstream is not None:
            upstream.abort()
        if isinstance(error, TimeoutError) and upstream is not None:
            raise timed_out() from error
        if isinstance(error, OSError):  # a TimeoutError is one
            raise connection_failed() from error
        raise
