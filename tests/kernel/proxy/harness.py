"""The proxy between real sockets: a scripted upstream, a uvicorn around `HttpProxy`, and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import cast

import httpx
import uvicorn
from tests.support.serving import serving

from shoal.config.settings import ProxySettings
from shoal.errors import NotFound, ShoalError
from shoal.models.workload import Tunnel
from shoal.proxy import HttpProxy, ResponseCut, parse_target
from shoal.proxy.asgi import Header, Receive, Scope, Send
from shoal.web.http1 import REFUSED, ConnectionGate, ConnectionLimits, HttpProtocol, TrustedPeers

PATIENCE = 30.0
"""Seconds after which a wait in a test is given up; no test passes or fails by how long it takes below that."""

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection that an `Upstream` accepted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """The next request's head, to the blank line; empty at the end of the connection."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    async def chunked_body(self) -> list[bytes]:
        """The chunks of a body, as they were framed."""
        chunks: list[bytes] = []
        while True:
            size = int(await self.reader.readline(), 16)
            data = (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return chunks
            chunks.append(data)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Upstream:
    """A service in a sandbox, scripted byte by byte. ``heads`` are the request heads that `answering` scripts saw."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers: list[Peer] = []
        self.heads: list[bytes] = []
        self.address = ""

    @property
    def connections(self) -> int:
        return len(self.peers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._script(peer)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20, backlog=1024)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


def answering(*answers: bytes, close: bool = False) -> Upstream:
    """An upstream that gives these answers in turn on each connection, the last one for ever."""

    async def script(peer: Peer) -> None:
        turn = 0
        while head := await peer.head():
            upstream.heads.append(head)
            length = header(head, b"content-length")
            if length:
                await peer.reader.readexactly(int(length))
            await peer.send(answers[min(turn, len(answers) - 1)])
            turn += 1
            if close:
                return

    upstream = Upstream(script)
    return upstream


def ok(body: bytes = b"ok", *lines: bytes) -> bytes:
    """A plain 200 of known length; ``lines`` are further headers."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines, b"", body])


def header(head: bytes, name: bytes) -> bytes | None:
    """The first value of a header in a raw head."""
    values = headers(head, name)
    return values[0] if values else None


def headers(head: bytes, name: bytes) -> list[bytes]:
    """All values of a header in a raw head, in order."""
    lines = head.split(b"\r\n")[1:]
    return [line.split(b":", 1)[1].strip() for line in lines if line.split(b":", 1)[0].lower() == name.lower()]


class Sandboxes:
    """A `shoal.proxy.Directory` over a dictionary; every address of a sandbox serves all of its ports.

    Attributes:
        tunnels: sandboxes without an address, and where `connect` finds them; ``dialled`` are its calls.
        kept: every port is that of an agent that keeps connections.
    """

    kept = False

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses
        self.tunnels: dict[str, str] = {}
        self.dialled: list[Tunnel] = []
        self.pending: dict[str, asyncio.Future[str]] = {}
        self.headers: list[Header] = []
        self.accesses: list[tuple[str, int, str]] = []
        self.ended: list[str] = []

    def address(self, sandbox_id: str, port: int) -> str | Tunnel | None:
        return Tunnel(sandbox_id, port) if sandbox_id in self.tunnels else self.addresses.get(sandbox_id)

    async def await_address(self, sandbox_id: str, port: int, *, wake: bool = True) -> str | Tunnel:
        if sandbox_id in self.pending:
            return await self.pending[sandbox_id]
        raise NotFound("TEST::SANDBOX_NOT_FOUND", "No such sandbox.")

    async def connect(self, tunnel: Tunnel) -> socket.socket:
        self.dialled.append(tunnel)
        host, _, port = self.tunnels[tunnel.sandbox_id].rpartition(":")
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        except BaseException:
            sock.close()
            raise
        return sock

    def keeps_connections(self, sandbox_id: str, port: int) -> bool:
        return self.kept

    def upstream_headers(self, sandbox_id: str, port: int) -> list[Header]:
        return self.headers

    def accessed(self, sandbox_id: str, port: int, transport: str) -> None:
        self.accesses.append((sandbox_id, port, transport))

    def finished(self, sandbox_id: str) -> None:
        self.ended.append(sandbox_id)


class Edge:
    """The smallest edge: routes by raw path, renders errors, lets a cut response be cut."""

    def __init__(self, proxy: HttpProxy) -> None:
        self.proxy = proxy
        self.under_way = 0
        self.finished = 0
        self.cuts: list[ResponseCut] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.under_way += 1
        try:
            if scope["type"] == REFUSED:
                raise scope["error"]
            target = parse_target(scope["raw_path"])
            assert target is not None, scope["raw_path"]
            await self.proxy(scope, receive, send, target)
        except ShoalError as error:
            await _render(error, send)
        except ResponseCut as cut:
            self.cuts.append(cut)
        finally:
            self.under_way -= 1
            self.finished += 1


async def _render(error: ShoalError, send: Send) -> None:
    body = json.dumps({"code": error.code, "message": error.message}).encode()
    head: list[Header] = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Front:
    """A running server with the proxy in it."""

    def __init__(self, edge: Edge, server: uvicorn.Server, sandboxes: Sandboxes) -> None:
        self.edge = edge
        self.proxy = edge.proxy
        self.server = server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.sandboxes = sandboxes
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=PATIENCE)

    async def raw(self, request: bytes) -> bytes:
        """Everything that comes back on a connection of its own; ``request`` should ask for a close."""
        reader, writer = await self.open()
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(), PATIENCE)
        finally:
            writer.close()

    async def get(self, path: str, *lines: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes, bytes]:
        """Status, head and body of one request; ``lines`` are headers."""
        request = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: shoal.test", "Connection: close", *lines, "", ""])
        head, _, answer = (await self.raw(request.encode("latin-1") + body)).partition(b"\r\n\r\n")
        return int(head.split()[1]), head, answer

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def http_protocol(limits: ConnectionLimits | None = None) -> type[asyncio.Protocol]:
    """The server's own protocol, as uvicorn takes it."""
    return cast(
        "type[asyncio.Protocol]", partial(HttpProtocol, ConnectionGate(limits or ConnectionLimits(), TrustedPeers()))
    )


@contextlib.asynccontextmanager
async def front(
    *, settings: ProxySettings | None = None, eip: str | None = None, sandboxes: Sandboxes | None = None, **at: str
) -> AsyncIterator[Front]:
    """Serve the proxy with uvicorn in this loop; ``at`` maps sandbox ids to addresses."""
    sandboxes = sandboxes or Sandboxes(**at)
    proxy = HttpProxy(sandboxes, settings or ProxySettings(), eip=eip)
    edge = Edge(proxy)
    config = uvicorn.Config(
        edge,
        host="127.0.0.1",
        port=0,
        http=http_protocol(),
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )
    try:
        async with serving(config) as server:
            running = Front(edge, server, sandboxes)
            async with running.http:
                yield running
    finally:
        await proxy.aclose()
