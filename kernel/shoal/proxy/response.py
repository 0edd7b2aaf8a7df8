"""An upstream's answers as they come off the wire: parsing without I/O.

A body of known length, or one that ends with the connection, bypasses the parser once its head is read: the bytes that
the transport delivered are the ones handed on, uncopied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import httptools

from shoal.proxy.failures import FramingError
from shoal.proxy.headers import is_event_stream, response_framing

if TYPE_CHECKING:
    from shoal.proxy.asgi import Header

MAX_HEAD_BYTES = 64 * 1024
"""Bound of a head, its interim heads and its trailers together; and of what may come without amounting to anything."""
MAX_INTERIMS = 256
"""Interim answers (1xx) before the final one; a 102 each second fits into the time that an answer may take."""
_BLANK = (b"\r\n", b"\n\n")


class ResponseHead(NamedTuple):
    """Status 200..599 and the headers, names in lower case."""

    status: int
    headers: list[Header]


class ResponseParser:
    """The answers of one connection, one after another; `begin` before each.

    Attributes:
        head: the final head, once it is whole; interim ones (1xx) are swallowed.
        continued: a 100 was seen.
        parts: pieces of the body, not yet taken.
        buffered: bytes in ``parts``.
        complete: the body's end was seen.
        keep_alive: after ``complete``, whether another request may follow on this connection. Not after an event
            stream, whose writer may write once more behind its end, unless it is known not to; nor if anything came
            along with the end.
        says_close: the head says that the connection ends with this answer.
    """

    __slots__ = (
        "_chunked",
        "_head_bytes",
        "_headers",
        "_headless",
        "_interims",
        "_keeps_streams",
        "_parser",
        "_remaining",
        "_spent",
        "_undigested",
        "buffered",
        "complete",
        "continued",
        "head",
        "keep_alive",
        "parts",
        "says_close",
    )

    def __init__(self) -> None:
        self._spent = True
        self.begin()

    def begin(self, *, headless: bool = False, keeps_streams: bool = False) -> None:
        """Make ready for the next answer.

        Args:
            headless: it has no body whatever its headers state (HEAD).
            keeps_streams: nothing comes behind the end of an event stream.
        """
        if self._spent:
            self._parser = httptools.HttpResponseParser(self)
            # A lone LF ends a line too (RFC 9112 section 2.2); every other strictness stays.
            self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self._spent = headless
        self._headless = headless
        self._keeps_streams = keeps_streams
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._interims = 0
        self._undigested = 0  # bytes since the parser last reported something: a line that does not end
        self._remaining: int | None = None
        self._chunked = False
        self.head: ResponseHead | None = None
        self.continued = False
        self.parts: list[bytes] = []
        self.buffered = 0
        self.complete = False
        self.keep_alive = False
        self.says_close = False

    @property
    def states_length(self) -> bool:
        """The head is there, and says how long the body is."""
        return self._remaining is not None

    def feed(self, data: bytes) -> None:
        """Take what the upstream sent. Raises FramingError, after which the connection is of no use."""
        if self.complete:
            self.keep_alive = False  # nobody asked for more
        elif self.head is not None and not self._chunked:
            self._spent = True
            self.on_body(data)
        else:
            self._undigested += len(data)
            self._parse(data)
            if self._undigested > MAX_HEAD_BYTES and not self.complete:
                raise FramingError("a line of more than 64 KiB")

    def _parse(self, data: bytes) -> None:
        try:
            if data[-1:] == b"\n":
                self._parse_line(data)
            else:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise FramingError("not an HTTP response") from error
            self._spent = True
            self.keep_alive = False

    def _parse_line(self, data: bytes) -> None:
        """Parse what ends with a line's end; one behind the answer's end would be skipped, and go unnoticed."""
        if data[-2:] in _BLANK:
            self._parser.feed_data(memoryview(data)[:-1])
            if self.complete:
                self.keep_alive = False
            self._parser.feed_data(b"\n")
        else:
            self._parser.feed_data(data)
            # A single byte that completes the answer has nothing behind it.
            if self.complete and len(data) > 1 and not (self.parts and data.endswith(self.parts[-1])):
                self.keep_alive = False

    def eof(self) -> bool:
        """The upstream closed its side in good order; whether that is where the answer ends."""
        if not self.complete and self.head is not None and self._remaining is None and not self._chunked:
            self.complete = True
        return self.complete

    def take(self) -> bytes:
        """Whatever of the body has come, as one piece."""
        parts = self.parts
        self.parts = []
        self.buffered = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # Called by httptools.

    def on_message_begin(self) -> None:
        if self.complete:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._undigested = 0
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES:
            raise FramingError("headers of more than 64 KiB")
        if self.head is None:
            self._headers.append((name.lower(), value))  # later ones are trailers: hop-by-hop, dropped

    def on_headers_complete(self) -> None:
        self._undigested = 0
        if self.complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim(status)
            return
        if not 200 <= status < 600:
            raise FramingError("a status that does not exist")
        self._remaining, self._chunked = response_framing(self._headers)
        self.says_close = not self._parser.should_keep_alive()
        self.keep_alive = not self.says_close and (self._keeps_streams or not is_event_stream(self._headers))
        self.head = ResponseHead(status, self._headers)
        self.complete = self._headless

    def _interim(self, status: int) -> None:
        if status == 101:
            raise FramingError("a protocol switch that nobody asked for")
        self._interims += 1
        if self._interims > MAX_INTERIMS:
            raise FramingError("too many interim answers")
        self.continued |= status == 100
        self._headers = []

    def on_body(self, body: bytes) -> None:
        self._undigested = 0
        if self.complete:
            self.keep_alive = False
            return
        remaining = self._remaining
        if remaining is not None:
            if len(body) > remaining:
                body = body[:remaining]
                self.keep_alive = False
            self._remaining = remaining = remaining - len(body)
            self.complete = remaining == 0
        if body:
            self.parts.append(body)
            self.buffered += len(body)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True
