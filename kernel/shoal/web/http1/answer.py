"""The answer as it goes out: the head, and what frames the body."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.proxy.asgi import Header

_BODILESS: Final = frozenset({204, 304})
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}
_LINES: Final = {status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode("ascii") for status in range(200, 600)}
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_CLOSE: Final = (b"connection", b"close")
_COLON: Final = b": ".join
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(NamedTuple):
    """The head, and how the body is framed.

    Attributes:
        left: bytes that Content-Length promises; None without one.
        chunked: the body is sent in chunks.
        bodiless: whatever body is given is dropped (HEAD, 204, 304).
        keep_alive: another answer may follow on the connection.
    """

    head: bytes
    left: int | None
    chunked: bool
    bodiless: bool
    keep_alive: bool


def answer_head(
    status: int, default: Sequence[Header], headers: Iterable[Header], *, method: str, http10: bool, keep_alive: bool
) -> Answer:
    """Frame an answer: by its Content-Length, else in chunks, else, for HTTP/1.0, by the end of the connection.

    ``headers`` are named in lower case; what they say of the transfer coding is replaced.

    Raises ValueError for a header that would say more than one line.
    """
    kept: list[Header] = []
    length: int | None = None
    bodiless = method == "HEAD" or status in _BODILESS
    for header in (*default, *headers):
        name, value = header
        if name in _FRAMING:
            if name == b"connection":
                keep_alive = keep_alive and b"close" not in value.lower()
                continue
            if name == b"transfer-encoding" or length is not None:
                continue
            length = int(value)
        kept.append(header)
    chunked = False
    if length is None and not bodiless:
        if http10:
            keep_alive = False
        else:
            chunked = True
            kept.append(_CHUNKED)
    if not keep_alive:
        kept.append(_CLOSE)
    head, lines = b"\r\n".join([_LINES[status], *map(_COLON, kept), b"", b""]), len(kept) + 2
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError("a header holds a character that no header may hold")
    return Answer(head, None if bodiless else length, chunked, bodiless, keep_alive)


def plain(status: int, text: str, default: Iterable[Header], *more: Header) -> bytes:
    """A whole answer in plain text, after which the connection closes."""
    content = text.encode("ascii")
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(content)),
        (b"connection", b"close"),
        *more,
        *default,
    ]
    return b"\r\n".join([_LINES[status], *map(_COLON, headers), b"", content])
