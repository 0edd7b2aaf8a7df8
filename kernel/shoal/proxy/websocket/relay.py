"""`Relay`: two legs, and how the end of one becomes the end of the other (docs/wire/api.md section 16)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from shoal.plugin.interfaces import WEBSOCKET_NEWS_SECONDS
from shoal.proxy.websocket import frames
from shoal.proxy.websocket.frames import FrameReader, Violation, read_close
from shoal.proxy.websocket.leg import Leg

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSE_SECONDS: Final = 10.0
"""How long a side may take to answer a close, and then to take what was written to it."""
SILENT: Final = "A ping was not answered."
CUT: Final = "The sandbox's service ended the connection."
BROKEN: Final = "The sandbox's service broke the protocol."


class Relay:
    """Passes frames between a client and a sandbox until both are gone.

    A close goes from one end to the other, and its answer back, so that each end hears what the other one said.

    Args:
        limit: bytes of one message from the client; 0 = any.
        ping_seconds: between two pings of each leg; one that is silent from one to the next is dropped. 0 = none.
        compressed: permessage-deflate was negotiated.
        notify: called while data frames flow, at most once in `WEBSOCKET_NEWS_SECONDS`; None if nobody wants to hear.

    Attributes:
        code: that ended it, of the first close that was said; 1006 as long as there was none, or if an end was lost.
        ended: done when both legs are gone.
    """

    def __init__(self, *, limit: int, ping_seconds: float, compressed: bool, notify: Callable[[], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.client = Leg(self, FrameReader(masked=True, limit=limit, compressed=compressed), masks=False)
        self.upstream = Leg(self, FrameReader(masked=False, limit=0, compressed=compressed), masks=True)
        self.client.other, self.upstream.other = self.upstream, self.client
        self._notify_access = notify
        self._next_news = self._loop.time() + WEBSOCKET_NEWS_SECONDS
        self._news: asyncio.TimerHandle | None = None
        self._ping_seconds = ping_seconds
        self._pinging: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._answer: tuple[int | None, str] = (None, "")  # to the first close, should the other end give none
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.code = frames.ABNORMAL

    async def run(self, from_client: bytes, from_upstream: bytes) -> None:
        """Returns when both legs are gone; cancelled, it drops them.

        Args:
            from_client, from_upstream: what came beyond the handshakes.
        """
        if self._ping_seconds:
            self._pinging = self._loop.call_later(self._ping_seconds, self._ping)
        for leg, early in ((self.client, from_client), (self.upstream, from_upstream)):
            if early:
                leg.data_received(early)
        try:
            await self.ended
        finally:
            for timer in (self._pinging, self._closing, self._news):
                if timer is not None:
                    timer.cancel()
            self.client.abort()
            self.upstream.abort()

    def flowed(self) -> None:
        """Data went on: reports that the sandbox is in use, now or at the next turn."""
        if self._news is None and self._notify_access is not None:
            self._news = self._loop.call_at(self._next_news, self._notify)

    def closing(self, leg: Leg, payload: bytes) -> None:
        """One side sent its close frame: the other side gets it, or has been waited for and this is its answer."""
        try:
            code, reason = read_close(payload)
        except Violation as violation:
            self.violated(leg, violation)
            return
        if leg is self.client and code is None:
            code = frames.NORMAL
        if not leg.close_sent:
            self._answer = (code, reason)
            self._note(code or frames.NORMAL)
        leg.other.close(code, reason)
        self._settle()

    def violated(self, leg: Leg, violation: Violation) -> None:
        """One side broke the rules: it gets the reason, and the other side an end."""
        self._note(violation.code)
        leg.close(violation.code, str(violation))
        leg.end()
        if leg is self.client:
            self.upstream.close(frames.GOING_AWAY)
        else:
            self.client.close(frames.INTERNAL_ERROR, BROKEN)
        self._wait()

    def lost(self, leg: Leg) -> None:
        """A side is gone, with or without a close."""
        other = leg.other
        other.set_reading(going=True)  # it may have waited for this side; now its close is to be heard
        if other.lost:
            if not self.ended.done():
                self.ended.set_result(None)
        elif other.close_received:
            other.close(*self._answer)
            other.finish()
        else:
            if leg is self.client:
                other.close(frames.GOING_AWAY)
            else:
                other.close(frames.INTERNAL_ERROR, CUT)
            self._wait()

    def shut(self) -> None:
        """The server goes down."""
        self._note(frames.SERVICE_RESTART)
        self.client.close(frames.SERVICE_RESTART)
        self.upstream.close(frames.GOING_AWAY)
        self._settle()

    def _note(self, code: int) -> None:
        if self.code == frames.ABNORMAL:
            self.code = code

    def _settle(self) -> None:
        """Hang up where both have said their close, and wait for the rest."""
        for leg in (self.client, self.upstream):
            if leg.close_sent and leg.close_received:
                leg.finish()
        self._wait()

    def _wait(self) -> None:
        if self._closing is None:
            self._closing = self._loop.call_later(CLOSE_SECONDS, self._overdue)

    def _overdue(self) -> None:
        """Whoever still owes its close is not waited for; what was written has as long again to be taken."""
        for leg in (self.client, self.upstream):
            leg.close(*self._answer)
            leg.finish()
        self._closing = self._loop.call_later(CLOSE_SECONDS, self._drop)

    def _drop(self) -> None:
        self.client.abort()
        self.upstream.abort()

    def _ping(self) -> None:
        self._pinging = self._loop.call_later(self._ping_seconds, self._ping)
        for leg in (self.client, self.upstream):
            if not leg.close_sent and not leg.lost and not leg.ping():
                leg.close(frames.INTERNAL_ERROR, SILENT)
                leg.finish()
                self._wait()

    def _notify(self) -> None:
        self._news = None
        self._next_news = self._loop.time() + WEBSOCKET_NEWS_SECONDS
        if self._notify_access is not None:
            self._notify_access()
