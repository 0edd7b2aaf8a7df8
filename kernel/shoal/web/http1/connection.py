"""`HttpProtocol`: one connection, its requests one after another, its deadlines, and its end."""

from __future__ import annotations

import asyncio
import socket
import struct
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from shoal.errors import RequestTimeout, ShoalError
from shoal.models.codes import REQUEST_TIMEOUT
from shoal.proxy.asgi import TARGET
from shoal.web.http1.answer import plain
from shoal.web.http1.cycle import REFUSED, Cycle
from shoal.web.http1.linger import Linger
from shoal.web.http1.reader import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from shoal.proxy.asgi import Header, Scope
    from shoal.web.http1.gate import Gate
    from shoal.web.http1.head import Head

_READ_AHEAD: Final = 65536
"""Bytes that wait to be parsed, beyond which the client is not read."""
_DISCARDED: Final = 65536
"""Of a body that nobody wants, this much is thrown away to keep the connection; for more it is closed."""
_RESET: Final = struct.pack("ii", 1, 0)
"""As SO_LINGER: closing sends a reset."""
_RETRY: Final = (b"retry-after", b"1")


class HttpProtocol(asyncio.Protocol):
    """What ``uvicorn.Config(http=…)`` takes, with a `Gate` bound to it (`functools.partial`).

    Attributes:
        transport: the connection itself.
        reader: of what the client sends.
        writable: set once the client has taken enough of what was written; None while it keeps up.
        deadline: of the step that the client is to take next; ``inf`` while it is the server's turn.
        limits: of the server.
        default_headers: of every answer.
    """

    __slots__ = (
        "_app",
        "_app_state",
        "_blocked",
        "_client",
        "_config",
        "_cycle",
        "_discarding",
        "_gate",
        "_loop",
        "_partial",
        "_paused",
        "_scheme",
        "_server",
        "_state",
        "_stopping",
        "deadline",
        "limits",
        "reader",
        "transport",
        "writable",
    )

    def __init__(
        self,
        gate: Gate,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._gate = gate
        self.limits = gate.limits
        self._config = config
        self._app = config.loaded_app
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self._server: tuple[str, int | None] | None = None
        self._client: tuple[str, int] | None = None
        self._scheme = "http"
        self._cycle: Cycle | None = None
        self._partial = self._paused = self._discarding = self._stopping = False
        self._blocked = 0
        self.reader = RequestReader(self.limits)
        self.writable: asyncio.Event | None = None
        self.deadline = inf

    @property
    def default_headers(self) -> list[Header]:
        return self._state.default_headers

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast("asyncio.Transport", transport)
        self._server = get_local_addr(self.transport)
        self._client = get_remote_addr(self.transport)
        self._scheme = "https" if is_ssl(self.transport) else "http"
        if not self._gate.enter(self, self._client[0] if self._client else None):
            self.transport.abort()
            return
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn's type lists its own protocols only
        self.deadline = self._loop.time() + self.limits.head_seconds

    def data_received(self, data: bytes) -> None:
        """Keep what came; go on with whatever waits for it."""
        reader = self.reader
        reader.feed(data)
        cycle = self._cycle
        if cycle is None:
            self._next()
        elif self._discarding:
            self._discard()
        else:
            cycle.wake()
        if len(reader.rest) > _READ_AHEAD and self._cycle is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._state.connections.discard(self)
        self._gate.leave(self)
        cycle = self._cycle
        if cycle is not None:
            cycle.gone = True
            cycle.wake()
        if self.writable is not None:
            self.writable.set()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.writable = asyncio.Event()
        self._blocked = self.transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self.limits.send_seconds

    def resume_writing(self) -> None:
        """It has caught up."""
        if self.writable is not None:
            self.writable.set()
            self.writable = None
        cycle = self._cycle
        self.deadline = inf
        if cycle is None or self._discarding:
            self.deadline = self._loop.time() + self.limits.idle_seconds
        elif cycle.awaited:
            self.deadline = self._loop.time() + self.limits.body_seconds

    # From uvicorn's server, and from the gate.

    def shutdown(self) -> None:
        """Begin no further request; an idle connection closes at once."""
        self._stopping = True
        cycle = self._cycle
        if cycle is None or cycle.complete:
            self._close()
        else:
            cycle.keep_alive = False

    def evict(self) -> None:
        """Close, without a word."""
        self.transport.abort()

    def expire(self, now: float) -> None:
        """The client has not taken its step in time."""
        cycle = self._cycle
        if self.writable is not None or self.transport.is_closing():
            self._check_pace(now)
        elif cycle is None:
            if self.reader.rest:
                self._refuse(_too_slow("The head did not arrive in time."))
            else:
                self._close()
        elif cycle.awaited:
            self.deadline = inf
            cycle.failure = _too_slow("The body did not arrive in time.")
            cycle.wake()
        elif self._discarding:
            self._close()
        else:
            self.deadline = inf

    def _check_pace(self, now: float) -> None:
        """A client that reads, if slowly, may go on."""
        size = self.transport.get_write_buffer_size()
        if size >= self._blocked:
            self.transport.abort()
            return
        self._blocked = size
        self.deadline = now + self.limits.send_seconds

    # One request after another.

    def _next(self) -> None:
        """Start the next request, if its head is whole."""
        if self._cycle is not None or self.transport.is_closing():
            return
        try:
            head = self.reader.head()
        except ShoalError as error:
            self._refuse(error)
            return
        if head is not None:
            self._start(head)
        elif not self._partial and self.reader.rest:
            self._partial = True
            self.deadline = min(self.deadline, self._loop.time() + self.limits.head_seconds)

    def _start(self, head: Head) -> None:
        self._partial = False
        if head.websocket and self._config.ws_protocol_class is not None:
            self._switch(head)
            return
        self._gate.busy(self)
        self.deadline = inf
        if self._gate.exceeds(self, len(self._state.tasks)) and head.target != b"/health":
            self._gate.tell("requests in flight")
            self.end(plain(503, "Service Unavailable", self.default_headers, _RETRY))
            return
        self._run(
            Cycle(
                self,
                self._scope(head),
                keep_alive=head.keep_alive and not self._stopping,
                http10=head.http10,
                expects_continue=head.expects_continue,
            )
        )

    def _scope(self, head: Head) -> Scope:
        target = head.target
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if head.http10 else "1.1",
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "root_path": "",
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": head.headers,
            TARGET: target,
        }

    def _run(self, cycle: Cycle) -> None:
        self._cycle = cycle
        tasks = self._state.tasks
        task = self._loop.create_task(cycle.run(self._app))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _refuse(self, error: ShoalError) -> None:
        """Answer what is no request, and close."""
        self._gate.busy(self)
        self.deadline = inf
        self.reader.done = False  # whatever comes is not to be read
        scope: Scope = {
            "type": REFUSED,
            "error": error,
            "method": "",
            "path": "",
            "scheme": self._scheme,
            "client": self._client,
            "headers": [],
        }
        self._run(Cycle(self, scope))

    def _switch(self, head: Head) -> None:
        """Hand the connection on to the WebSocket protocol, with what the client sent beyond the handshake."""
        self._state.connections.discard(self)
        self._gate.switch(self, self.transport)
        self._resume()
        self.deadline = inf
        lines = [head.method.encode() + b" " + head.target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in head.headers]
        switched: Any = self._config.ws_protocol_class
        protocol = switched(
            config=self._config,
            server_state=self._state,
            app_state=self._app_state,
        )
        protocol.connection_made(self.transport)
        protocol.data_received(b"\r\n".join([*lines, b"", b""]))
        self.transport.set_protocol(protocol)
        if self.reader.rest:
            protocol.data_received(self.reader.rest)

    # From the cycle.

    def write(self, data: bytes) -> None:
        """To the client."""
        self.transport.write(data)

    def soon(self, callback: Callable[[], None]) -> None:
        """With the next turn of the event loop."""
        self._loop.call_soon(callback)

    def digested(self) -> None:
        """The application has taken of the body: read on."""
        if self.writable is None:
            self.deadline = inf
        if self._paused and len(self.reader.rest) <= _READ_AHEAD:
            self._resume()

    def await_body(self, longest: float) -> None:
        """The application waits for more of the body: the client has to send some within ``longest`` seconds."""
        if self.writable is None:
            self.deadline = self._loop.time() + min(longest, self.limits.body_seconds)

    def may_stay(self, *, expected: bool) -> bool:
        """Whether the connection can be kept after an answer that begins now: the body's end is here, or near.

        ``expected``: the client waits to be asked for the body, and may or may not send it now.
        """
        if expected:
            return False
        missing = self.reader.missing
        return self.reader.read_ahead() if missing is None else missing <= _DISCARDED

    def answered(self, cycle: Cycle) -> None:
        """The whole answer was written."""
        self._state.total_requests += 1
        if self.transport.is_closing():
            return
        if not cycle.keep_alive or self._stopping:
            self.end(b"")
        else:
            self._discard()

    def end(self, last: bytes) -> None:
        """Write the last bytes and close; if the client may still be sending, let it read them first."""
        if last:
            self.transport.write(last)
        if self.reader.done:
            self._close()
            return
        if self._cycle is not None:
            self._cycle.gone = True
            self._cycle.wake()
        self._state.connections.discard(self)
        self._resume()
        linger = Linger(self.transport, self._gate)
        self._gate.replace(self, linger)
        linger.begin()

    def cut(self, *, silent: bool) -> None:
        """Close within an answer; with a reset where nothing else tells the client that there should be more."""
        if silent:
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self._close()

    def _close(self) -> None:
        """Close once everything is written; a client that does not take it is dropped after a while."""
        self._blocked = self.transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self.limits.send_seconds
        self.transport.close()

    def _discard(self) -> None:
        """Throw away what is left of the body, then turn to the next request."""
        reader = self.reader
        try:
            while not reader.exhausted and reader.body():
                pass
        except ShoalError:
            self.end(b"")
            return
        if not reader.exhausted:
            if not self._discarding:
                self._discarding = True
                self.deadline = self._loop.time() + self.limits.body_seconds
            self._resume()
            return
        self._discarding = False
        self._cycle = None
        self._gate.idle(self)
        self.deadline = self._loop.time() + self.limits.idle_seconds
        if reader.rest:
            self._loop.call_soon(self._next)
        if self._paused and len(reader.rest) <= _READ_AHEAD:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()


def _too_slow(why: str) -> RequestTimeout:
    return RequestTimeout(REQUEST_TIMEOUT, why)
