"""One client's connection: requests in, answers out, one after another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

from shoal_agent.http.app import App, failure
from shoal_agent.http.body import Body
from shoal_agent.http.errors import Disconnected, ProtocolError
from shoal_agent.http.inbox import ConnectionInbox
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, FileResponse, Response, Stream, Upgrade, error_response
from shoal_agent.http.tunnel import ClientTunnel
from shoal_agent.http.wire import MAX_HEAD, RequestHead, parse_head, render_head, unquote
from shoal_agent.log import LOG

if TYPE_CHECKING:
    from shoal_agent.http.server import Server

MAX_UNSENT_BYTES = 256 * 1024
"""Unsent bytes from which on a writer waits for the client."""
DRAIN_BYTES = 256 * 1024
"""How much of a body that its handler left is read, so that the connection can go on."""
FILE_PIECE = 256 * 1024
"""Bytes of a file that are read and sent at once. (sendfile took twice the processor time on a container's network.)"""
LINGER_SECONDS = 1.0


class Connection(asyncio.Protocol):
    """Served by one task. `Server` knows all of them."""

    transport: asyncio.Transport
    inbox: ConnectionInbox

    def __init__(self, app: App, server: Server) -> None:
        self._app = app
        self._server = server
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._streaming = False
        self._lost = False
        self._minor = 1
        self.busy = False
        """Whether a request is being served."""
        self.task: asyncio.Task[None] | None = None

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        _set_options(self.transport)
        self.inbox = ConnectionInbox(self.transport)
        self._server.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self.inbox.feed(data)

    def eof_received(self) -> bool:
        self.inbox.end()
        return True  # a client that has closed its side only still wants its answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.inbox.end()
        self.resume_writing()
        self._server.connections.discard(self)
        if self._streaming and self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # Writing.

    async def write(self, data: bytes) -> None:
        """Sends `data`, then waits while too much is unsent. Raises `Disconnected`."""
        if self._lost or self.transport.is_closing():
            raise Disconnected
        self.transport.write(data)
        while self._paused and not self._lost:
            self._writable = asyncio.get_running_loop().create_future()
            try:
                await self._writable
            finally:
                self._writable = None
        if self._lost:
            raise Disconnected

    def _continue(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Serving.

    async def _serve(self) -> None:
        try:
            while await self._one():
                pass
        except ProtocolError as error:
            await self._refuse(error)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            LOG.error("a connection failed", cause=error)
        finally:
            self.busy = False
            self.transport.close()

    async def _one(self) -> bool:
        """Serves one request. Returns whether the connection goes on."""
        data = await self.inbox.until(b"\r\n\r\n", MAX_HEAD)
        self.busy = True
        head = parse_head(data)
        if head.minor and head.headers.get("host") is None:
            raise ProtocolError(400, "the Host header is missing")
        self._minor = head.minor
        expects = head.minor == 1 and head.headers.has_token("expect", "100-continue")
        body = Body(self.inbox, head.length, self._continue if expects else None)
        raw_path, _, query = _origin_form(head.target).partition("?")
        request = Request(head, _decoded(raw_path), query, body, self._peer())
        answer = await self._app.answer(request, raw_path)
        goes_on = head.keeps_alive() and not body.unasked() and not self._server.stopping
        goes_on = await self._send(answer, request, head, goes_on)
        if not body.finished:
            goes_on = await self._discard(body) and goes_on
        self.busy = False
        return goes_on and not self._server.stopping

    def _peer(self) -> str:
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    async def _send(self, answer: Answer, request: Request, head: RequestHead, goes_on: bool) -> bool:
        bodiless = head.method == "HEAD" or answer.status in (204, 304)
        if isinstance(answer, Response):
            await self._send_whole(answer, bodiless, goes_on)
            return goes_on
        if isinstance(answer, Stream):
            return await self._send_stream(answer, request, bodiless, goes_on)
        if isinstance(answer, FileResponse):
            return await self._send_file(answer, bodiless, goes_on)
        await self._upgrade(answer)
        return False

    async def _send_whole(self, answer: Response, bodiless: bool, goes_on: bool) -> None:
        fields = answer.headers
        if answer.status not in (204, 304) and not _holds(fields, "content-length"):
            fields = [*fields, ("Content-Length", str(len(answer.body)))]
        await self.write(self._head(answer.status, fields, goes_on) + (b"" if bodiless else answer.body))

    def _head(self, status: int, fields: list[tuple[str, str]], goes_on: bool) -> bytes:
        if not goes_on:
            fields = [*((n, v) for n, v in fields if n.lower() != "connection"), ("Connection", "close")]
        elif self._minor == 0:
            fields = [*fields, ("Connection", "keep-alive")]
        return render_head(status, fields)

    async def _send_stream(self, answer: Stream, request: Request, bodiless: bool, goes_on: bool) -> bool:
        self._streaming = True  # from here on the task is cancelled when the client is gone
        try:
            if self._lost:
                raise Disconnected
            return await self._send_chunks(answer, request, bodiless, goes_on)
        finally:
            self._streaming = False
            close = getattr(answer.chunks, "aclose", None)
            if close is not None:
                await close()

    async def _send_chunks(self, answer: Stream, request: Request, bodiless: bool, goes_on: bool) -> bool:
        try:
            first = b"" if bodiless else await _next(answer.chunks)
        except (Disconnected, ProtocolError):
            raise
        except Exception as error:
            await self._send_whole(failure(error, request), bodiless, goes_on)
            return goes_on
        fields, plain = answer.headers, _holds(answer.headers, "content-length")
        if self._minor == 0 and not plain:
            goes_on = False  # the end of the connection is the end of the answer
        chunked = not plain and self._minor == 1
        if chunked:
            fields = [*fields, ("Transfer-Encoding", "chunked")]
        frame = _chunk if chunked else bytes
        pending = self._head(answer.status, fields, goes_on)
        while first:
            await self.write(pending + frame(first))
            pending, first = b"", await _next(answer.chunks)
        await self.write(pending + (b"0\r\n\r\n" if chunked and not bodiless else b""))
        return goes_on

    async def _send_file(self, answer: FileResponse, bodiless: bool, goes_on: bool) -> bool:
        with answer.file:
            fields = [*answer.headers, ("Content-Length", str(answer.count))]
            pending = self._head(answer.status, fields, goes_on)
            left = 0 if bodiless else answer.count
            while left:
                try:
                    data = os.pread(answer.file.fileno(), min(left, FILE_PIECE), answer.offset + answer.count - left)
                except OSError as error:
                    raise Disconnected from error
                if not data:
                    break
                left -= len(data)
                await self.write(pending + data if pending else data)
                pending = b""
                await asyncio.sleep(0)  # a client that takes all at once does not keep the others waiting
            if pending:
                await self.write(pending)
            return goes_on and not left

    async def _upgrade(self, answer: Upgrade) -> None:
        self.transport.write(render_head(101, [*answer.headers, ("Connection", "Upgrade")]))
        with contextlib.suppress(ConnectionError):
            await answer.talk(ClientTunnel(self.inbox, self))

    async def _refuse(self, error: ProtocolError) -> None:
        with contextlib.suppress(ConnectionError):
            await self._send_whole(error_response(error.status, "INVALID_REQUEST", str(error)), False, False)
            await self._linger()

    async def _discard(self, body: Body) -> bool:
        """Reads what the handler left. Returns False if it is too much: the connection then ends."""
        if not body.unasked() and (body.length is None or body.length <= DRAIN_BYTES):
            left = DRAIN_BYTES
            while left > 0 and (data := await body.read()):
                left -= len(data)
            if body.finished:
                return True
        await self._linger()
        return False

    async def _linger(self) -> None:
        """Reads on for a moment: closing with unread bytes would reset the connection, and the answer be lost."""
        ClientTunnel(self.inbox, self).write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.inbox.wait():
                    self.inbox.take(1 << 20)


def _set_options(transport: asyncio.Transport) -> None:
    """An event does not wait 40 ms for the acknowledgement of the one before (asyncio sees to that by itself only for
    sockets that were made with a protocol number), and a client whose machine is gone is noticed after two minutes."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_INET:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _origin_form(target: str) -> str:
    """The path and query of a target, which may be a whole URL."""
    if target.startswith("/"):
        return target
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return target
    return "/" + rest.partition("/")[2]


def _decoded(raw_path: str) -> str:
    try:
        return unquote(raw_path)
    except ValueError as error:
        raise ProtocolError(400, str(error)) from None


def _holds(fields: list[tuple[str, str]], name: str) -> bool:
    return any(field.lower() == name for field, _ in fields)


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """The next chunk that is not empty; empty at the end."""
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
