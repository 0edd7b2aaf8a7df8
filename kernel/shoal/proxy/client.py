"""The client's half of an exchange: the only reader of ASGI's ``receive`` while a request is proxied.

A body that is short is gathered; any other is pumped by a task, with back-pressure. Once nothing more is to be read,
the client is watched: when it leaves, the exchange is cancelled wherever it stands. Watching begins after a moment's
grace, which keeps requests that are answered promptly free of a second task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from shoal.errors import InternalError, ShoalError
from shoal.models.codes import INTERNAL_ERROR

if TYPE_CHECKING:
    from types import TracebackType

    from shoal.proxy.asgi import Receive
    from shoal.proxy.lease import Lease

GRACE_SECONDS = 0.05
"""A client that leaves earlier is noticed this late."""
CONTINUE_SECONDS = 1.0
"""How long an upstream may think about ``Expect: 100-continue`` before it gets the body anyway (RFC 9110 10.1.1)."""


_SLACK_SECONDS = 0.001
"""Of timers, which some loops round."""


class _Left(Exception):
    """The client is gone; nobody is there to answer."""


class Graces:
    """The clients whose grace runs. It is the same for all, so one timer is enough: most are done before it fires."""

    __slots__ = ("_armed", "_running")

    def __init__(self) -> None:
        self._running: deque[tuple[float, Client]] = deque()
        self._armed = False

    def begin(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        """Have the client watched once its grace is over, if its exchange is not."""
        self._running.append((loop.time() + GRACE_SECONDS, client))
        if not self._armed:
            self._armed = True
            loop.call_later(GRACE_SECONDS, self._over, loop)

    def _over(self, loop: asyncio.AbstractEventLoop) -> None:
        running = self._running
        now = loop.time() + _SLACK_SECONDS
        while running and running[0][0] <= now:
            running.popleft()[1].start_watch()
        if running:
            loop.call_at(running[0][0], self._over, loop)
        else:
            self._armed = False


class Client:
    """A context manager around the whole exchange; leaving it is silent when it is the client that left."""

    __slots__ = ("_gone", "_graces", "_loop", "_main", "_receive", "_stopped", "_task")

    def __init__(self, receive: Receive, graces: Graces) -> None:
        self._receive = receive
        self._graces = graces
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None
        self._gone = self._stopped = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.stop()
        if isinstance(error, _Left):
            return True
        if not self._gone or self._main is None:
            return False
        # As asyncio.timeout does: a cancellation from elsewhere is not ours to swallow.
        return self._main.uncancel() == 0 and isinstance(error, asyncio.CancelledError)

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    async def gather(self) -> bytes:
        """The whole body, for one that is known to be short."""
        pieces: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Left
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(pieces)

    def watch(self) -> None:
        """From a moment later on, cancel the exchange when the client leaves."""
        self._graces.begin(self, self._loop)

    def pump(self, lease: Lease, *, chunked: bool, expects_continue: bool) -> None:
        """Send the body on as it comes, then watch."""
        self._task = self._loop.create_task(self._pump(lease, chunked=chunked, expects_continue=expects_continue))

    def start_watch(self) -> None:
        """The grace is over."""
        if not self._stopped:
            self._task = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        if self._main is not None:
            self._main.cancel()

    async def _pump(self, lease: Lease, *, chunked: bool, expects_continue: bool) -> None:
        try:
            if expects_continue and not await lease.go_ahead(CONTINUE_SECONDS):
                await asyncio.sleep(GRACE_SECONDS)  # the answer goes out; reading before would ask for the body
            elif not await self._forward(lease, chunked=chunked):
                return
        except ShoalError:
            return  # the exchange hears the same from its lease, after whatever answer came before
        except Exception as error:
            failure = InternalError(INTERNAL_ERROR, "The request's body could not be read.")
            failure.__cause__ = error
            lease.fail(failure)
            return
        await self._watch()

    async def _forward(self, lease: Lease, *, chunked: bool) -> bool:
        """Whether the client is still there at the end of its body."""
        send = lease.write_chunk if chunked else lease.write
        while True:
            try:
                message = await self._receive()
            except ShoalError as failure:  # the body is no HTTP, or came too slowly
                lease.fail(failure)
                return False
            if message["type"] == "http.disconnect":
                self._leave()
                return False
            send(message.get("body", b""))
            if not message.get("more_body", False):
                break
            await lease.drain()
        if chunked:
            lease.write(b"0\r\n\r\n")
        lease.end_request()
        return True
