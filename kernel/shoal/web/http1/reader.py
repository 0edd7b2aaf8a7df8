"""`RequestReader`: bytes to requests, without I/O. The result is the same however the bytes are cut."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from shoal.errors import HeadTooLarge, ShoalError
from shoal.models.codes import HEAD_TOO_LARGE
from shoal.web.http1.head import Head, HeadParser, check_fields, malformed

if TYPE_CHECKING:
    from shoal.web.http1.limits import ConnectionLimits

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15}+)(?:;[\t -~\x80-\xff]*+)?")
_CHUNKS_AT_ONCE: Final = 256
"""Decoded before the event loop has its turn again."""
_LINE_ALLOWANCE: Final = 16
"""Bytes of a chunk's line that are not counted as overhead, besides twice the chunk's own length."""

_BLANK_BYTES: Final = 8
"""Before a request line."""

_SIZE, _DATA, _END, _TRAILERS = range(4)


class RequestReader:
    """The requests of one connection, one after another: `head`, then `body` until it is `done`, then `head` again.

    Attributes:
        rest: what came and is not parsed yet.
        done: the body was read to its end.
        pending: `body` stopped in the midst of ``rest`` to leave others their turn.
    """

    __slots__ = (
        "_ahead",
        "_chunked",
        "_failure",
        "_fields",
        "_heads",
        "_left",
        "_limit",
        "_overhead",
        "_searched",
        "_state",
        "done",
        "pending",
        "rest",
    )

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limit = limits.head_bytes
        self._fields = limits.head_fields
        self._heads = HeadParser()
        self.rest = b""
        self.done = True
        self.pending = False
        self._chunked = False
        self._left = 0
        self._state = _SIZE
        self._overhead = 0
        self._searched = 0
        self._ahead = b""
        self._failure: ShoalError | None = None

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self.rest = self.rest + data if self.rest else data

    def head(self) -> Head | None:
        """The next request's head; None if it is not whole yet. Raises InvalidRequest, HeadTooLarge, NotSupported."""
        rest = self.rest
        begin = 0 if b"A" <= rest[:1] <= b"Z" else _start(rest)
        end = rest.find(b"\r\n\r\n", max(begin, self._searched))
        size = end + 4 if end >= 0 else len(rest) + 1
        if size > self._limit:
            raise _too_large(f"The head exceeds {self._limit} bytes.")
        if end < 0:
            self._searched = len(rest) - 3
            return None
        block = rest[begin:size]
        if block.count(b"\r\n") - 2 > self._fields:
            raise _too_large(f"The head has more than {self._fields} fields.")
        head = self._heads.read(block)
        self.rest = rest[size:]
        self._searched = 0
        if head.chunked or head.length:
            self._begin_body(head)
        return head

    def _begin_body(self, head: Head) -> None:
        self._chunked = head.chunked
        self._left = head.length
        self._state = _SIZE
        self._overhead = 0
        self.done = False

    @property
    def missing(self) -> int | None:
        """Bytes of the body that have not come yet; None if nobody knows."""
        if self.done:
            return 0
        return None if self._chunked else max(0, self._left - len(self.rest))

    def body(self) -> bytes:
        """The next piece of the body, empty if there is none yet. Raises InvalidRequest, HeadTooLarge."""
        if self._ahead:
            piece, self._ahead = self._ahead, b""
            return piece
        if self._failure is not None:
            raise self._failure
        if self.done or not self.rest:
            return b""
        return self._chunks() if self._chunked else self._sized()

    def read_ahead(self) -> bool:
        """Decode what is there of a chunked body, for `body` to return; whether that was all of it."""
        if not self.done and self._chunked and self.rest and not self._ahead and self._failure is None:
            try:
                self._ahead = self._chunks()
            except ShoalError as failure:
                self._failure = failure
        return self.done

    @property
    def exhausted(self) -> bool:
        """The body was read to its end, and `body` has returned all of it."""
        return self.done and not self._ahead

    def _sized(self) -> bytes:
        rest, left = self.rest, self._left
        if len(rest) <= left:
            piece, self.rest = rest, b""
        else:
            piece, self.rest = rest[:left], rest[left:]
        self._left = left - len(piece)
        self.done = not self._left
        return piece

    def _chunks(self) -> bytes:
        rest = self.rest
        position, size, turns = 0, len(rest), 0
        pieces: list[bytes] = []
        self.pending = False
        try:
            while position < size and not self.done:
                state = self._state
                if state == _SIZE:
                    if turns == _CHUNKS_AT_ONCE:
                        self.pending = True
                        break
                    turns += 1
                    following = self._size(rest, position)
                elif state == _DATA:
                    piece = rest[position : position + self._left]
                    pieces.append(piece)
                    following = position + len(piece)
                    self._left -= len(piece)
                    if not self._left:
                        self._state = _END
                elif state == _END:
                    following = self._chunk_end(rest, position)
                else:
                    following = self._trailers(rest, position)
                if following == position:
                    break
                position = following
        except ShoalError as failure:
            self._failure = failure
            if not pieces:
                raise
        self.rest = rest[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _size(self, rest: bytes, position: int) -> int:
        """The line before a chunk; where it ends, or ``position`` if it is not whole."""
        end = rest.find(b"\r\n", position, position + self._limit + 2)
        if end < 0:
            if len(rest) - position > self._limit + 1:
                raise _too_large("A line between chunks is too long.")
            return position
        match = _CHUNK.fullmatch(rest, position, end)
        if match is None:
            raise malformed("A line between chunks is malformed.")
        self._left = int(match[1], 16)
        self._overhead = max(0, self._overhead + end - position - _LINE_ALLOWANCE - 2 * self._left)
        if self._overhead > self._limit:
            raise _too_large("The extensions of the chunks are too long.")
        self._state = _DATA if self._left else _TRAILERS
        return end + 2

    def _chunk_end(self, rest: bytes, position: int) -> int:
        if rest.startswith(b"\r\n", position):
            self._state = _SIZE
            return position + 2
        if rest[position] != 0x0D or position + 1 < len(rest):
            raise malformed("A chunk is longer than it says.")
        return position

    def _trailers(self, rest: bytes, position: int) -> int:
        """Check the trailers and drop them; where they end, or ``position`` if they are not whole."""
        if rest.startswith(b"\r\n", position):
            self.done = True
            return position + 2
        end = rest.find(b"\r\n\r\n", position)
        size = (end + 4 if end >= 0 else len(rest) + 1) - position
        if size > self._limit:
            raise _too_large(f"The trailers exceed {self._limit} bytes.")
        if end < 0:
            return position
        block = rest[position : end + 2]
        if block.count(b"\r\n") > self._fields:
            raise _too_large(f"There are more than {self._fields} trailers.")
        check_fields(block)
        self.done = True
        return end + 4


def _start(rest: bytes) -> int:
    """Where the request line begins, behind blank lines (RFC 9112 section 2.2). Raises InvalidRequest."""
    begin = 0
    while begin < _BLANK_BYTES and rest.startswith(b"\r\n", begin):
        begin += 2
    first = rest[begin : begin + 2]
    if first and not 0x41 <= first[0] <= 0x5A and (first != b"\r" or begin == _BLANK_BYTES):
        raise malformed("This is no HTTP request.")
    return begin


def _too_large(why: str) -> HeadTooLarge:
    return HeadTooLarge(HEAD_TOO_LARGE, why)
