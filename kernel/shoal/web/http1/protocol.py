"""`HttpProtocol`: one connection, its requests one after another."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shoal.errors import ShoalError
from shoal.web.http1.answer import plain
from shoal.web.http1.connection import READ_AHEAD, ServerConnection
from shoal.web.http1.cycle import Cycle
from shoal.web.http1.scope import Ends, refused_scope, request_scope, written_out

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from shoal.web.http1.gate import ConnectionGate
    from shoal.web.http1.head import Head

_DISCARDED: Final = 65536
"""Of a body that nobody wants, this much is thrown away to keep the connection; for more it is closed."""
_RETRY: Final = (b"retry-after", b"1")


class HttpProtocol(ServerConnection):
    """What ``uvicorn.Config(http=…)`` takes, with a `ConnectionGate` bound to it (`functools.partial`)."""

    __slots__ = ("_app", "_app_state", "_config", "_ends", "_inner", "_partial", "_stopping")

    def __init__(
        self,
        gate: ConnectionGate,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(gate, server_state, _loop or asyncio.get_running_loop())
        if not config.loaded:
            config.load()
        self._config = config
        self._app_state = app_state
        self._app: Any = config.loaded_app
        # A request that no reverse proxy has marked goes through uvicorn's middleware unchanged, so it goes past it.
        self._inner: Any = self._app.app if isinstance(self._app, ProxyHeadersMiddleware) else self._app
        self._ends = Ends(None, None, "http")
        self._partial = self._stopping = False

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast("asyncio.Transport", transport)
        self._ends = Ends.of(self.transport)
        client = self._ends.client
        if not self._gate.enter(self, client[0] if client else None):
            self.transport.abort()
            return
        self._state.connections.add(self)
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
        if len(reader.rest) > READ_AHEAD and self._cycle is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    # From uvicorn's server.

    def shutdown(self) -> None:
        """Begin no further request; an idle connection closes at once."""
        self._stopping = True
        cycle = self._cycle
        if cycle is None or cycle.complete:
            self._close()
        else:
            cycle.keep_alive = False

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
            self._gate.warn("requests in flight")
            self.end(plain(503, "Service Unavailable", self.default_headers, _RETRY))
            return
        cycle = Cycle(
            self,
            request_scope(head, self._ends),
            keep_alive=head.keep_alive and not self._stopping,
            http10=head.http10,
            expects_continue=head.expects_continue,
        )
        self._run(cycle, self._app if head.forwarded else self._inner)

    def _run(self, cycle: Cycle, app: Any) -> None:
        self._cycle = cycle
        tasks = self._state.tasks
        task = self._loop.create_task(cycle.run(app))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _refuse(self, error: ShoalError) -> None:
        self._gate.busy(self)
        self.deadline = inf
        self.reader.done = False  # whatever comes is not to be read
        self._run(Cycle(self, refused_scope(error, self._ends)), self._inner)

    def _switch(self, head: Head) -> None:
        """Hand the connection on to the WebSocket protocol, with what the client sent beyond the handshake."""
        self._state.connections.discard(self)
        self._gate.switch(self, self.transport)
        self._resume()
        self.deadline = inf
        switched: Any = self._config.ws_protocol_class
        protocol = switched(config=self._config, server_state=self._state, app_state=self._app_state)
        protocol.connection_made(self.transport)
        protocol.data_received(written_out(head))
        self.transport.set_protocol(protocol)
        if self.reader.rest:
            protocol.data_received(self.reader.rest)

    # Behind an answer, or before it ends.

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
        elif self.reader.exhausted:
            self._turn()
        else:
            self._discard()

    def _discard(self) -> None:
        """Throw away what is left of the body, then turn to the next request."""
        reader = self.reader
        try:
            while not reader.exhausted and reader.body():
                pass
        except ShoalError:
            self.end(b"")
            return
        if reader.exhausted:
            self._turn()
            return
        if not self._discarding:
            self._discarding = True
            self.deadline = self._loop.time() + self.limits.body_seconds
        self._resume()

    def _turn(self) -> None:
        """The request is over, its body and its answer: wait for the next one."""
        self._discarding = False
        self._cycle = None
        self._gate.idle(self)
        self.deadline = self._loop.time() + self.limits.idle_seconds
        if self.reader.rest:
            self._loop.call_soon(self._next)
        if self._paused and len(self.reader.rest) <= READ_AHEAD:
            self._resume()
