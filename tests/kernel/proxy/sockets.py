"""WebSockets between real sockets: shoal's edge on its own uvicorn protocols, services by the `websockets` library."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import uvicorn
from tests.kernel.proxy.harness import PATIENCE, Peer, Sandboxes, Upstream, header, http_protocol
from tests.kernel.web.fakes import AccessLog, MemorySandboxes
from tests.support.serving import serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from shoal.config.settings import ProxySettings, Settings
from shoal.plugin.interfaces import Authenticator, Ingress
from shoal.proxy import HttpProxy
from shoal.proxy.websocket import UpgradeProtocol, WebSocketProxy
from shoal.proxy.websocket.frames import masked
from shoal.proxy.websocket.handshake import accept_value
from shoal.web.app import build, own_resources
from shoal.web.entrance import Entrance
from shoal.web.http1 import ConnectionLimits
from shoal.web.table import RouteTable

Heard = list[tuple[int, bytes]]
"""First bytes and payloads of frames."""
Handler = Callable[[ServerConnection], Awaitable[None]]
PATH = "/v1/sandboxes/box/proxy/8080/chat"


async def echo(connection: ServerConnection) -> None:
    """Sends back what comes, and ends when that does."""
    async for message in connection:
        await connection.send(message)


class Service:
    """A WebSocket service in a sandbox, and what it saw of its last client: request, close code, close reason."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.address = ""
        self.clients: list[ServerConnection] = []

    async def _handle(self, connection: ServerConnection) -> None:
        self.clients.append(connection)
        with contextlib.suppress(Exception):  # how a connection ends is for the test to judge
            await self._handler(connection)

    @property
    def last(self) -> ServerConnection:
        return self.clients[-1]

    async def closed(self) -> tuple[int | None, str | None]:
        """The close that the service heard, once its last client is gone."""
        await asyncio.wait_for(self.last.wait_closed(), PATIENCE)
        received = self.last.protocol.close_rcvd
        return (None, None) if received is None else (received.code, received.reason)


@contextlib.asynccontextmanager
async def service(handler: Handler = echo, **options: Any) -> AsyncIterator[Service]:
    """Run one; ``options`` are those of `websockets.asyncio.server.serve`."""
    running = Service(handler)
    options = {"ping_interval": None, "max_size": None, "close_timeout": PATIENCE, **options}
    async with serve(running._handle, "127.0.0.1", 0, **options) as server:
        running.address = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield running


class SocketFront:
    """A running server, whose sandbox ``box`` has all its ports at one address."""

    def __init__(self, server: uvicorn.Server, sandboxes: Sandboxes, access: AccessLog) -> None:
        self.server = server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.sandboxes = sandboxes
        self.access = access

    def connect(self, path: str = PATH, **options: Any) -> connect:
        """What `websockets.asyncio.client.connect` gives, of this server; no limits of the client's own."""
        options = {"ping_interval": None, "max_size": None, "proxy": None, "close_timeout": PATIENCE, **options}
        return connect(f"ws://127.0.0.1:{self.port}{path}", **options)

    async def refused(self, path: str = PATH, **options: Any) -> tuple[int, str]:
        """The close of a WebSocket that is accepted only to be closed."""
        async with self.connect(path, **options) as client:
            return await ending(client)


@contextlib.asynccontextmanager
async def socket_front(
    address: str,
    *,
    settings: ProxySettings | None = None,
    authenticators: Sequence[Authenticator] = (),
    ingresses: Sequence[Ingress] = (),
    limit: int | None = None,
) -> AsyncIterator[SocketFront]:
    """Serve the edge with uvicorn in this loop, as `shoal.server` does."""
    settings = settings or ProxySettings()
    sandboxes, access = Sandboxes(**({"box": address} if address else {})), AccessLog()
    proxy, sockets = HttpProxy(sandboxes, settings), WebSocketProxy(sandboxes, settings)

    async def ready() -> dict[str, str | None]:
        return {}

    own = own_resources(MemorySandboxes(), Settings(proxy=settings), ready, "1")
    table = RouteTable(own)
    edge = build(
        table,
        Entrance(authenticators, ingresses, public=table.public),
        proxy=proxy,
        sockets=sockets,
        access=access,
    )
    config = uvicorn.Config(
        edge,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_config=None,
        http=http_protocol(ConnectionLimits(requests=limit or 0)),
        ws=UpgradeProtocol,
        limit_concurrency=limit,
        server_header=False,
        date_header=False,
    )
    try:
        async with serving(config) as server:
            yield SocketFront(server, sandboxes, access)
    finally:
        await sockets.aclose(PATIENCE)
        await proxy.aclose()


async def ending(client: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close that the client hears; 1005 for none, 1006 for no close at all."""
    await asyncio.wait_for(client.wait_closed(), PATIENCE)
    received = client.protocol.close_rcvd
    return (1006, "") if received is None else (received.code, received.reason)


class RawClient:
    """A WebSocket client that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame from the server; (-1, b"") at the end of the connection."""
        try:
            async with asyncio.timeout(PATIENCE):
                first, length = await self.reader.readexactly(2)
                if length > 125:
                    length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
                return first, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return -1, b""


def masked_frame(first: int, payload: bytes, key: bytes | None = None) -> bytes:
    """A client's frame with this first byte."""
    key = key or os.urandom(4)
    size = len(payload)
    short = bytes([0x80 | size]) if size < 126 else b""
    length = short or (b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big"))
    pad = (key * (size // 4 + 1))[:size]
    body = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
    return bytes([first]) + length + key + body


CLOSE_FRAME = 0x88
HANDSHAKE = (
    "GET {path} HTTP/1.1",
    "Host: shoal.test",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@contextlib.asynccontextmanager
async def raw_client(port: int, *lines: str, path: str = PATH) -> AsyncIterator[RawClient]:
    """A client past its handshake; ``lines`` are more headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        request = "\r\n".join([*HANDSHAKE, *lines, "", ""]).format(path=path)
        writer.write(request.encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield RawClient(reader, writer)
    finally:
        writer.close()


def raw_service(*frames: bytes, headers: bytes = b"", hangs_up: bool = True) -> tuple[Upstream, Heard]:
    """A service that accepts, sends ``frames`` and collects what it hears, control frames unmasked.

    It says no close; with ``hangs_up`` it ends the connection when it hears one.
    """
    heard: Heard = []

    async def script(peer: Peer) -> None:
        key = header(await peer.head(), b"sec-websocket-key")
        assert key is not None
        accept = b"\r\nSec-WebSocket-Accept: " + accept_value(key) + headers
        await peer.send(b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade" + accept + b"\r\n\r\n")
        await peer.send(b"".join(frames))
        first = 0
        while first != CLOSE_FRAME or not hangs_up:
            first, second = await peer.reader.readexactly(2)
            assert second & 0x80, "a client's frames are masked"
            key = await peer.reader.readexactly(4)
            heard.append((first, masked(await peer.reader.readexactly(second & 127), key)))

    return Upstream(script), heard
