"""`UpgradeProtocol`: a client's opening handshake, as what ``uvicorn.Config(ws=…)`` takes.

To the application it is an ASGI connection of type ``websocket``, but messages do not pass through ASGI: the
application takes the connection itself, by the extension `SOCKET`, and splices it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from shoal.proxy.asgi import TARGET
from shoal.proxy.websocket.frames import ABNORMAL, CLOSE, close_payload, frame
from shoal.proxy.websocket.handshake import PROTOCOL, Refusal, elements, refusal, switching_head
from shoal.proxy.websocket.proxy import SOCKET
from shoal.proxy.websocket.relay import CLOSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from shoal.proxy.asgi import Header, Message, Scope
    from shoal.proxy.websocket.leg import Leg

_EARLY_BYTES: Final = 64 * 1024
"""What a client may send before it is accepted, which it should not do at all."""
_PHRASES: Final = {400: b"Bad Request", 403: b"Forbidden", 426: b"Upgrade Required", 500: b"Internal Server Error"}
_BUSY: Final = Refusal(503, "Service Unavailable", ((b"retry-after", b"1"),))
_NO_PATH: Final = Refusal(400, "The target must be a path of ASCII characters.")


class UpgradeProtocol(asyncio.Protocol):
    """One client, from its request to the moment when it is refused, or `switch` hands its connection on.

    As a `ClientSocket` it is what the extension offers.

    Attributes:
        accepted: the handshake was answered.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._key = b""
        self._early = b""
        self._offered: list[bytes] = []
        self._connected = self._answered = False
        self.accepted = False
        self._gone: asyncio.Future[None] = self._loop.create_future()

    # From uvicorn and the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the HTTP protocol, which hands the connection on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """The first call has the whole request, rebuilt; what follows came too early, or too late."""
        if self._task is None and not self._answered:
            self._begin(data)
        elif not self._answered:
            self._early += data
            if len(self._early) > _EARLY_BYTES:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: whatever was under way for it ends."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._gone.done():
            self._gone.set_result(None)
        if self._task is not None and not self._answered:
            self._task.cancel()

    def _begin(self, request: bytes) -> None:
        line, *lines = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
        method, url, _ = line.split(b" ", 2)
        headers = [(name.lower(), value) for name, _, value in (each.partition(b": ") for each in lines)]
        given = dict(headers)
        path, query = _split(url)
        why = _BUSY if self._is_full() else refusal(method, given) if path else _NO_PATH
        if why is not None:
            self._refuse(why)
            return
        self._key = given[b"sec-websocket-key"]
        self._offered = elements(headers, PROTOCOL)
        self._task = self._loop.create_task(self._run(self._scope(url, path, query, headers)))
        self._server.tasks.add(self._task)
        self._task.add_done_callback(self._server.tasks.discard)

    def _is_full(self) -> bool:
        limit = self._config.limit_concurrency
        return limit is not None and len(self._server.tasks) >= limit

    def _scope(self, target: bytes, path: bytes, query: bytes, headers: list[Header]) -> Scope:
        root = self._config.root_path
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root,
            "path": root + unquote(path.decode("ascii")),
            "raw_path": root.encode("ascii") + path,
            "query_string": query,
            TARGET: target,
            "headers": headers,
            "subprotocols": [name.decode("latin-1") for name in self._offered],
            "state": self._app_state.copy(),
            "extensions": {SOCKET: self},
        }

    async def _run(self, scope: Scope) -> None:
        await self._config.loaded_app(scope, self.receive, self.send)
        if not self._answered:
            self._refuse(Refusal(500, "Internal Server Error"))

    # For the application.

    async def receive(self) -> Message:
        """ASGI ``receive``: the connection, and then its end."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await self._gone
        return {"type": "websocket.disconnect", "code": ABNORMAL}

    async def send(self, message: Message) -> None:
        """ASGI ``send``, of which ``websocket.close`` before anything else is all that is understood: HTTP 403."""
        if message["type"] != "websocket.close":
            raise RuntimeError("messages of a WebSocket go by the connection itself")
        self._refuse(Refusal(403, ""))

    def accept(self, subprotocol: bytes | None, headers: Sequence[Header]) -> None:
        """Answer the handshake."""
        self.accepted = True
        if not self._gone.done():
            self._transport.write(switching_head(self._key, subprotocol, [*headers, *self._server.default_headers]))

    def close(self, code: int, reason: str) -> None:
        """Accept, then close. Browsers take the answer only if it chooses one of the subprotocols that they offer."""
        if self._answered or self._gone.done():
            return
        if not self.accepted:
            self.accept(self._offered[0] if self._offered else None, ())
        self._transport.write(frame(CLOSE, close_payload(code, reason), None))
        self._hang_up()

    def switch(self, leg: Leg) -> bytes:
        """From now on the connection is the leg's; returns what came beyond the handshake."""
        self._answered = True
        if self._task is not None:
            self._server.tasks.discard(self._task)  # what is open is no request in flight
        leg.join(self._transport)
        if self._gone.done():
            leg.connection_lost(None)
        return self._early

    def _refuse(self, why: Refusal) -> None:
        content = why.message.encode()
        headers = [*why.headers, (b"content-length", b"%d" % len(content)), (b"connection", b"close")]
        headers += [(b"content-type", b"text/plain; charset=utf-8")] * bool(content) + self._server.default_headers
        lines = [b"HTTP/1.1 %d %b" % (why.status, _PHRASES.get(why.status, b"Service Unavailable"))]
        lines += [name + b": " + value for name, value in headers]
        self._transport.write(b"\r\n".join([*lines, b"", content]))
        self._hang_up()

    def _hang_up(self) -> None:
        """Let the client close first: closed while it still sends, it might not get to read why."""
        self._answered = True
        self._early = b""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target, which may be in absolute form; no path where none can be made out."""
    try:
        parsed = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b"", b""
    path, query = parsed.path or b"", parsed.query or b""
    return (path, query) if (path + query).isascii() else (b"", b"")
