"""What a handler gives back. None stands for `Response()`: 200 without a body."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from shoal_agent.http.tunnel import ClientTunnel

Fields = list[tuple[str, str]]
JSON_TYPE = "application/json; charset=utf-8"


class Response:
    """A whole answer. Content-Length is added, unless `headers` hold one (as an answer to HEAD may)."""

    def __init__(self, body: bytes = b"", status: int = 200, headers: Fields | None = None) -> None:
        self.body = body
        self.status = status
        self.headers: Fields = headers or []


class Stream:
    """An answer whose bytes come from `chunks`, one HTTP chunk each; empty ones are skipped.

    The head is sent with the first chunk, so an `ApiError` that `chunks` raises before it becomes a plain answer. When
    `chunks` ends, the closing chunk is sent at once. An exception after the first chunk closes the connection without
    it: the client sees that the stream broke. `chunks` goes on only when the client has taken what was sent (bounded
    memory); when the client is gone, it is cancelled where it waits (`asyncio.CancelledError`), then closed.

    With a Content-Length in `headers` the bytes are sent as they are, and must be that many.
    """

    def __init__(self, chunks: AsyncIterator[bytes], status: int = 200, headers: Fields | None = None) -> None:
        self.chunks = chunks
        self.status = status
        self.headers: Fields = headers or []


class FileResponse:
    """`count` bytes from `offset` of the open regular file, read as the client takes them. It is closed after.

    If the file turns out shorter, the connection is closed: the client sees that something is missing.
    """

    def __init__(
        self, file: BinaryIO, offset: int, count: int, status: int = 200, headers: Fields | None = None
    ) -> None:
        self.file = file
        self.offset = offset
        self.count = count
        self.status = status
        self.headers: Fields = headers or []


class Upgrade:
    """101 with `headers`; the connection is then that of `talk`, and is closed when it returns.

    `headers` hold the Upgrade field; `Connection: Upgrade` is added. WebSockets: `shoal_agent.http.websocket.accept`.
    """

    def __init__(self, talk: Callable[[ClientTunnel], Awaitable[None]], headers: Fields) -> None:
        self.talk = talk
        self.status = 101
        self.headers = headers


Answer = Response | Stream | FileResponse | Upgrade


_HALF = re.compile(r"(\\\\|\\ud[89ab]..\\ud[cdef]..)|\\ud[89abcdef]..")
"""In JSON as `dump` writes it: a backslash or a whole surrogate pair, or else half of one."""


def dump(value: Any) -> bytes:
    """JSON in one line, all ASCII: no client can split it at U+0085 or U+2028.

    Bytes that are no UTF-8, which Python has as halves of surrogate pairs, become U+FFFD: many parsers refuse halves.
    """
    text = json.dumps(value, separators=(",", ":"))
    if "\\ud" in text:
        text = _HALF.sub(lambda found: found[1] or r"\ufffd", text)
    return text.encode("ascii")


def json_response(value: Any, status: int = 200, headers: Fields | None = None) -> Response:
    """`value` as JSON."""
    return Response(dump(value), status, [("Content-Type", JSON_TYPE), *(headers or [])])


def text_response(text: str, status: int = 200, headers: Fields | None = None) -> Response:
    """`text` as text/plain, UTF-8."""
    return Response(text.encode(), status, [("Content-Type", "text/plain; charset=utf-8"), *(headers or [])])


def error_response(status: int, code: str, message: str, headers: Fields | None = None) -> Response:
    """The body of every error: code and message, both always there."""
    return json_response({"code": code, "message": message}, status, headers)
