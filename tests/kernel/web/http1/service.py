"""A small application behind the server's own protocol, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import cast

import uvicorn
from tests.support.serving import serving as served

from shoal.errors import ShoalError
from shoal.proxy.asgi import Message, Receive, Scope, Send
from shoal.web.http1 import REFUSED, ConnectionGate, ConnectionLimits, HttpProtocol, TrustedPeers
from shoal.web.http1.cycle import STREAMED

PATIENCE = 30.0
"""Seconds after which a wait in a test is given up; no test passes or fails by how long it takes below that."""


class Service:
    """What the paths do: ``/echo`` answers the body, ``/early`` without reading it, ``/hold`` when released, and so on.

    Attributes:
        seen: the scopes that came.
        left: how many requests ended with the client's leaving.
    """

    def __init__(self) -> None:
        self.seen: list[Scope] = []
        self.release = asyncio.Event()
        self.left = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        if scope["type"] == REFUSED:
            await _answer(send, scope["error"].status, scope["error"].code.encode())
            return
        await getattr(self, scope["path"].strip("/").replace("-", "_") or "echo")(scope, receive, send)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._body(receive)
        if body is not None:
            await _answer(send, 200, scope["method"].encode() + b" " + body)

    async def streamed(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STREAMED] = True
        await self.echo(scope, receive, send)

    async def health(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 200, b"healthy")

    async def early(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 401, b"no")

    async def hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.release.wait()
        await _answer(send, 200, b"held")

    async def unsized(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"hel", b"", b"lo"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def cut(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def head_only(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.release.wait()
        await send({"type": "http.response.body"})

    async def pour(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await asyncio.wait_for(_sent(send), PATIENCE * 2)) and not self.release.is_set():
            pass

    async def no_answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def split(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nevil: b")]})

    async def _body(self, receive: Receive) -> bytes | None:
        body = b""
        while True:
            try:
                message = await receive()
            except Exception:
                self.left += 1
                raise
            if message["type"] == "http.disconnect":
                self.left += 1
                return None
            piece: bytes = message["body"]
            body += piece
            if not message["more_body"]:
                return body


async def _sent(send: Send) -> bool:
    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    return True


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def rendering(app: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """What the edge does with errors that ``receive`` raises."""
    started = False

    async def noted(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await app(scope, receive, noted)
    except ShoalError as error:
        if not started:
            await _answer(send, error.status, error.code.encode())


class Server:
    """A running one."""

    def __init__(self, server: uvicorn.Server, service: Service, gate: ConnectionGate) -> None:
        self.server = server
        self.service = service
        self.gate = gate
        self.port: int = server.servers[0].sockets[0].getsockname()[1]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, *packets: bytes) -> bytes:
        """All that comes back until the server closes."""
        reader, writer = await self.open()
        try:
            for packet in packets:
                writer.write(packet)
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read(), PATIENCE)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(limits: ConnectionLimits | None = None, trusted: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Serve `Service` in this loop."""
    service, gate = Service(), ConnectionGate(limits or ConnectionLimits(), TrustedPeers(trusted))
    config = uvicorn.Config(
        partial(rendering, service),
        interface="asgi3",
        host="127.0.0.1",
        port=0,
        http=cast("type[asyncio.Protocol]", partial(HttpProtocol, gate)),
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )
    async with served(config) as server:
        try:
            yield Server(server, service, gate)
        finally:
            service.release.set()
