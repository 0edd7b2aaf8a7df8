"""The upstream's half of an exchange: one HTTP/1.1 connection, one exchange at a time.

Back-pressure works both ways: reading stops while more than `READ_AHEAD` of an answer waits to be taken, and `drain`
waits while the transport holds more than its high-water mark of the request.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
from typing import TYPE_CHECKING, cast

from shoal.proxy.deadline import Deadline
from shoal.proxy.failures import FramingError, response_failed, timed_out
from shoal.proxy.response import ResponseParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.proxy.response import ResponseHead

READ_AHEAD = 256 * 1024
"""Bytes of an answer that may wait to be taken before reading stops; one more read may come on top."""
WRITE_AHEAD = 256 * 1024
"""High-water mark of the request's bytes in the transport."""
_births = itertools.count()


class UpstreamConnection(asyncio.Protocol):
    """One connection. `begin` an exchange, write, read `head` and body to `complete`; then it is `reusable`, or not.

    Attributes:
        born: a number that is higher the later the connection was made.
        closed: the transport is gone.
        idle_since: when it was parked last, by the clock of the loop.
        served: exchanges that it began.
        reading_paused, writing_paused: back-pressure is on, in that direction.
        silent: nothing was heard in this exchange, or nothing that is an answer.
        on_lost: called once, when the transport is gone.
    """

    __slots__ = (
        "_continue",
        "_deadline",
        "_failure",
        "_idle",
        "_last",
        "_loop",
        "_poll",
        "_reader",
        "_request_sent",
        "_response",
        "_response_limit",
        "_tcp",
        "_transport",
        "_writer",
        "born",
        "closed",
        "idle_since",
        "on_lost",
        "reading_paused",
        "served",
        "silent",
        "writing_paused",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._response = ResponseParser()
        self._transport: asyncio.Transport
        self._deadline = Deadline(loop, self._overdue)
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._continue: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._poll: select.poll | None = None
        self._tcp: socket.socket | None = None
        self.reading_paused = False
        self.writing_paused = False
        self._request_sent = False
        self._response_limit = 0.0
        self._idle = False
        self._last = False
        self.born = next(_births)
        self.closed = False
        self.idle_since = 0.0
        self.served = 0
        self.silent = True
        self.on_lost: Callable[[UpstreamConnection], None] | None = None

    # One exchange.

    def begin(self, *, headless: bool, response_limit: float, last: bool = False, keeps_streams: bool = False) -> None:
        """Start an exchange.

        Args:
            headless: the answer has no body whatever it states (HEAD).
            response_limit: seconds from the request's last byte to the answer's head.
            last: the request asks the upstream to close the connection after it.
            keeps_streams: the connection may serve another after an event stream, too.
        """
        self.served += 1
        self._last = last
        self._response.begin(headless=headless, keeps_streams=keeps_streams)
        self._response_limit = response_limit
        self._request_sent = False
        self.silent = True

    def write(self, data: bytes) -> None:
        """Queue a piece of the request. Raises BadGateway when the upstream is gone."""
        self._check()
        self._transport.write(data)

    def write_chunk(self, data: bytes) -> None:
        """Queue a piece of the request's body, framed as one chunk; empty data is no chunk, for that would end it."""
        self._check()
        if data:
            # Not writelines: asyncio's, from 3.12 on, may leave out pause_writing, and with it all back-pressure.
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def drain(self) -> None:
        """Wait until the transport takes more. Raises GatewayTimeout when the upstream takes nothing for too long."""
        self._check()
        if self.writing_paused:
            self._writer = self._loop.create_future()
            stalled = self._loop.call_later(self._response_limit, self.fail, timed_out())
            try:
                await self._writer
            finally:
                stalled.cancel()
                self._writer = None
            self._check()

    def end_request(self) -> None:
        """The request's last byte is queued: from now on the upstream owes an answer."""
        self._request_sent = True
        if self._tcp is not None and self.served > 1:
            # Many services write head and body apart, and their kernel holds the body back until the head is
            # acknowledged, which on a used connection takes 40 ms. The kernel forgets this after a while.
            self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self._response.head is None:
            self._deadline.set(self._response_limit)

    @property
    def request_sent(self) -> bool:
        return self._request_sent

    async def go_ahead(self, limit: float) -> bool:
        """After ``Expect: 100-continue``: whether to send the body, which is not so once a final answer has come.

        Waits for either, ``limit`` seconds at most; an upstream that has said nothing by then gets the body.
        """
        if not self._response.continued and self._response.head is None:
            self._check()
            self._continue = self._loop.create_future()
            timer = self._loop.call_later(limit, _wake, self._continue)
            try:
                await self._continue
            finally:
                timer.cancel()
                self._continue = None
            self._check()
        return self._response.head is None

    async def head(self) -> ResponseHead:
        """The answer's head. Raises BadGateway or GatewayTimeout."""
        response = self._response
        while response.head is None:
            self._check()
            await self._heard()
        self._deadline.clear()
        return response.head

    async def read(self, limit: float) -> bytes:
        """The next piece of the body, as much as has come; empty only at the end.

        Args:
            limit: seconds of silence to bear; 0 = any, but the response limit where the answer states its length: an
                event stream may idle, while a service that owes a number of bytes hangs.

        Raises BadGateway when the answer breaks off, GatewayTimeout after too long a silence.
        """
        response = self._response
        while not response.parts and not response.complete:
            self._check()
            limit = limit or (self._response_limit if response.states_length else 0.0)
            if limit:
                self._deadline.set(limit)
            await self._heard()
            self._deadline.clear()
        body = response.take()
        if self.reading_paused:
            self.reading_paused = False
            self._transport.resume_reading()
        return body

    @property
    def complete(self) -> bool:
        """The answer ended, and all of it was read."""
        return self._response.complete and not self._response.parts

    @property
    def reusable(self) -> bool:
        """Both sides said all they had to, and the upstream expects more."""
        return self.complete and self._response.keep_alive and self._request_sent and not self._last and not self._lost

    @property
    def closing(self) -> bool:
        """Both sides said all they had to, and the upstream said that it closes the connection now."""
        return self.complete and self._response.says_close and self._request_sent and not self._lost

    @property
    def buffered(self) -> int:
        """Bytes of the answer that wait to be read."""
        return self._response.buffered

    @property
    def unsent(self) -> int:
        """Bytes of the request that the upstream has not taken yet."""
        return self._transport.get_write_buffer_size()

    def fail(self, error: Exception) -> None:
        """End the exchange with ``error`` and drop the connection."""
        if self._failure is None:
            self._failure = error
        self._wake_all()
        self._transport.abort()

    def abort(self) -> None:
        """Drop the connection at once, whatever is under way."""
        self._transport.abort()

    # Between exchanges.

    def park(self, limit: float) -> None:
        """Keep the connection for reuse, ``limit`` seconds at most."""
        self._idle = True
        self.idle_since = self._loop.time()
        self._deadline.set(limit)

    def unpark(self) -> bool:
        """Take it back into use; False when the upstream has closed it meanwhile, or said anything on it.

        The socket is asked, too, for what the loop has not heard of yet.
        """
        self._idle = False
        self._deadline.clear()
        return self.is_open()

    def is_open(self) -> bool:
        """Whether an idle connection is open and nothing came on it; asks the socket."""
        return not self._lost and not self._has_input()

    def await_close(self, limit: float) -> None:
        """Let the upstream close first, as it said it would; after ``limit`` seconds it is closed here.

        Whoever closes first keeps the pair of ports for a minute: closing some hundreds of connections per second, this
        side would run out of ports.
        """
        self.park(limit)

    def close(self) -> None:
        """Close an idle connection."""
        self._transport.close()

    def _has_input(self) -> bool:
        """Anything to read on an idle connection is a close, or as good as one."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    @property
    def _lost(self) -> bool:
        return self.closed or self._failure is not None or self._transport.is_closing()

    # Waiting and deadlines.

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.closed or self._transport.is_closing():
            raise response_failed()

    async def _heard(self) -> None:
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake_all(self) -> None:
        _wake(self._reader)
        _wake(self._writer)
        _wake(self._continue)

    def _overdue(self) -> None:
        if self._idle:
            self.close()
        else:
            self.fail(timed_out())

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_AHEAD)
        found = transport.get_extra_info("socket")
        self._tcp = found if found is not None and found.family in (socket.AF_INET, socket.AF_INET6) else None

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._transport.abort()  # an answer without a question
            return
        self.silent = False
        response = self._response
        try:
            response.feed(data)
        except FramingError as error:
            failure = response_failed("did not answer in HTTP")
            failure.__cause__ = error
            self.silent = response.head is None
            self.fail(failure)
            return
        if response.buffered >= READ_AHEAD and not self.reading_paused:
            self.reading_paused = True
            self._transport.pause_reading()
        _wake(self._reader)
        if response.continued or response.head is not None:
            _wake(self._continue)

    def eof_received(self) -> bool:
        if not self._response.eof():
            self._failure = self._failure or self._broken_off()
        self._wake_all()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self._idle and not self._response.complete and self._failure is None:
            self._failure = self._broken_off()
            self._failure.__cause__ = exc
        self._deadline.stop()
        self._wake_all()
        if self.on_lost is not None:
            self.on_lost(self)

    def _broken_off(self) -> Exception:
        begun = self._response.head is not None
        return response_failed("broke its answer off") if begun else response_failed()

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        _wake(self._writer)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
