"""One request handed on, and its answer handed back, both as they come."""

from __future__ import annotations

import asyncio
import contextlib

from shoal_agent.http.body import Body
from shoal_agent.http.errors import Disconnected, ProtocolError
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, Response, Stream, Upgrade
from shoal_agent.http.tunnel import ClientTunnel
from shoal_agent.proxy.reply import HOP_BY_HOP, Fields, Reply, body_of, read_reply
from shoal_agent.proxy.upstream import AppConnection, UpstreamPool

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Unreachable(Exception):
    """There is no answer from the application."""


async def forward(request: Request, pool: UpstreamPool, target: str, fields: Fields) -> Answer:
    """The answer to `request` of an application; `target` and `fields` are what it gets. Raises `Unreachable`."""
    upgrading = request.body.finished and request.headers.has_token("connection", "upgrade")
    repeatable = request.body.finished and request.method in _SAFE and not upgrading
    head = _head(request, target, fields, upgrading)
    while True:
        try:
            upstream, used = await pool.take(fresh=not repeatable)
        except OSError as error:
            raise Unreachable(error.strerror or str(error)) from error
        exchange = _Exchange(request, pool, upstream)
        try:
            return await exchange.run(head)
        except (Disconnected, OSError) as error:
            await exchange.abandon()
            if exchange.unwanted:
                raise Disconnected from error
            if not used:
                raise Unreachable("it closed the connection without an answer") from error
        except ProtocolError as error:
            await exchange.abandon()
            raise Unreachable(str(error)) from error
        except BaseException:
            await exchange.abandon()
            raise


def _head(request: Request, target: str, fields: Fields, upgrading: bool) -> bytes:
    connection = request.headers.get("connection") or ""
    dropped = HOP_BY_HOP | {token.strip().lower() for token in connection.split(",")} | {"expect", "content-length"}
    lines = [f"{request.method} {target} HTTP/1.1\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in fields if name.lower() not in dropped]
    if request.body.length is None:
        lines.append("Transfer-Encoding: chunked\r\n")
    elif request.body.length or request.headers.get("content-length") is not None:
        lines.append(f"Content-Length: {request.body.length}\r\n")
    if upgrading and request.headers.get("upgrade") is not None:
        lines.append(f"Connection: Upgrade\r\nUpgrade: {request.headers.get('upgrade')}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


class _Exchange:
    """A request on its connection. The connection goes back to the pool after the answer, or is closed."""

    def __init__(self, request: Request, pool: UpstreamPool, upstream: AppConnection) -> None:
        self._request = request
        self._pool = pool
        self._upstream = upstream
        self._sender: asyncio.Task[None] | None = None
        self._over = False
        self.unwanted = False
        """Whether the client is gone."""

    async def run(self, head: bytes) -> Answer:
        self._request.body.when_client_ends(self._nobody_waits)
        await self._upstream.write(head)
        self._upstream.acknowledge_at_once()
        if not self._request.body.finished:
            self._sender = asyncio.get_running_loop().create_task(self._send_body())
        reply = await read_reply(self._upstream.inbox)
        if reply.status == 101:
            self._leave()  # from here on the connection is the tunnel's
            return Upgrade(self._talk, [(n, v) for n, v in reply.fields if n.lower() != "connection"])
        body = body_of(reply, self._request.method, self._upstream.inbox)
        if reply.status in (204, 304):
            await self.finish(reply)
            return Response(b"", reply.status, reply.passed_on())
        fields = reply.passed_on()
        if body is None or body.length is None:
            fields = [(name, value) for name, value in fields if name.lower() != "content-length"]
        return Stream(_Chunks(self, reply, body), reply.status, fields)

    async def _send_body(self) -> None:
        body, chunked = self._request.body, self._request.body.length is None
        try:
            while data := await body.read():
                await self._upstream.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            if chunked:
                await self._upstream.write(b"0\r\n\r\n")
        except (Disconnected, ProtocolError, OSError):
            if not body.finished and not self._upstream.inbox.ended:
                self._upstream.close()  # the client broke off; a half request must not look like a whole one

    async def read(self, body: Body | None) -> bytes:
        """The next piece of the answer, empty at its end. Raises `Disconnected`, `ProtocolError`."""
        if body is not None:
            return await body.read()
        return self._upstream.inbox.take(256 * 1024) if await self._upstream.inbox.wait() else b""

    async def finish(self, reply: Reply) -> None:
        """The answer is complete."""
        sent = self._sender is None or self._sender.done()
        if reply.persistent and sent and not self._over:
            self._leave()
            self._pool.give_back(self._upstream)
        else:
            await self.abandon()

    async def abandon(self) -> None:
        """Closes the connection, unless it is somebody else's by now. The request's body is then free to be read."""
        if not self._over:
            self._leave()
            self._upstream.close()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])

    def _nobody_waits(self) -> None:
        self.unwanted = True
        self._upstream.close()

    def _leave(self) -> None:
        self._over = True
        self._request.body.when_client_ends(None)

    async def _talk(self, tunnel: ClientTunnel) -> None:
        there = asyncio.get_running_loop().create_task(self._there(tunnel))
        try:
            while await self._upstream.inbox.wait():
                await tunnel.write(self._upstream.inbox.take(256 * 1024))
        finally:
            there.cancel()
            self._upstream.transport.close()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await there

    async def _there(self, tunnel: ClientTunnel) -> None:
        try:
            while data := await tunnel.read():
                await self._upstream.write(data)
        finally:
            self._upstream.write_eof()


class _Chunks:
    """The body of an answer. Not a generator: it is to be closed also if it has never begun."""

    def __init__(self, exchange: _Exchange, reply: Reply, body: Body | None) -> None:
        self._exchange = exchange
        self._reply = reply
        self._body = body

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        data = await self._exchange.read(self._body)
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        if self._body is not None and self._body.finished:
            await self._exchange.finish(self._reply)
        else:
            await self._exchange.abandon()
