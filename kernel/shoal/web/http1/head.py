"""The head of a request (RFC 9112): a strict reading, without the leniencies in which servers differ.

Lines end with CRLF, nothing is folded, no space stands before a colon. Content-Length and Transfer-Encoding are read
here once, for everybody: what contradicts itself is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import httptools

from shoal.errors import InvalidRequest, NotSupported
from shoal.models.codes import BAD_REQUEST, UNKNOWN_ERROR
from shoal.proxy.asgi import Header

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VISIBLE: Final = bytes(range(0x21, 0x7F))
"""What a target consists of."""
_VERSIONS: Final = (b" HTTP/1.1", b" HTTP/1.0")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([\t -~\x80-\xff]*+)\r\n|(?s:.)++")
"""A header field; or, without a name, all that follows and is none."""
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_HOST: Final = re.compile(rb"(?:[0-9A-Za-z\-._~!$&'()*+,;=%]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5}+)?")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*+)(.*+)")
_NOTED: Final = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"})
_KEEP_ALIVE: Final = b"keep-alive"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_FORWARDED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})
_UNCOMMON: Final = _NOTED - {b"connection", b"host"}


class Head(NamedTuple):
    """One request's head.

    Attributes:
        target: in origin form, or ``*``; as it came, an empty query included.
        headers: names in lower case; Host is the target's authority where the target names one.
        length: of the body; 0 without one.
        chunked: the body's length is not known beforehand.
        keep_alive: another request may follow.
        expects_continue: the client waits for a 100 before it sends the body.
        websocket: the client asks to switch to WebSocket.
        forwarded: in it a reverse proxy names the client.
    """

    method: str
    target: bytes
    http10: bool
    headers: list[Header]
    length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    websocket: bool
    forwarded: bool


def malformed(why: str) -> InvalidRequest:
    """The 400 of a request that HTTP does not allow."""
    return InvalidRequest(BAD_REQUEST, why)


def check_fields(block: bytes) -> None:
    """See that there are lines of header fields, each with its CRLF, and nothing else. Raises InvalidRequest."""
    fields = _FIELD.findall(block)
    if fields and not fields[-1][0]:
        raise malformed("A header line is malformed.")


class HeadParser:
    """llhttp, for the syntax of heads that are whole; what it does not judge, or leaves open, is judged here."""

    __slots__ = ("_headers", "_host", "_parser", "_url")

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser | None = None
        self._url = b""
        self._host: bytes | None = None  # one that was found well-formed: the next request has the same
        self._headers: list[Header] = []

    def on_url(self, url: bytes) -> None:
        """Called by httptools."""
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools."""
        self._headers.append((name.lower(), value))

    def read(self, block: bytes) -> Head:
        """One head, to its blank line. Raises InvalidRequest, NotSupported."""
        end = block.find(b"\r\n")
        version = block[end - 9 : end]
        if version not in _VERSIONS:
            raise malformed("The request line is malformed.")
        parser = self._parser
        if parser is None:
            parser = httptools.HttpRequestParser(self)
        self._parser = None
        headers: list[Header] = []
        self._headers = headers
        try:
            parser.feed_data(block)
        except httptools.HttpParserUpgrade:
            method = parser.get_method()
        except httptools.HttpParserError as error:
            raise malformed("The head is malformed.") from error
        else:
            method = parser.get_method()
            self._parser = parser
        if b" \r\n" in block or b"\t\r\n" in block:
            headers = [(name, value.rstrip(b" \t")) for name, value in headers]
        target, given = self._url, dict(headers)
        if not target or target.translate(None, _VISIBLE):
            raise malformed("The request's target is malformed.")
        http10 = version == _VERSIONS[1]
        if not http10 and len(given) == len(headers) and given.keys().isdisjoint(_UNCOMMON):
            plain = self._plain(method, target, headers, given)
            if plain is not None:
                return plain
        head = _read_head(method, target, headers, given, http10=http10)
        if head.chunked or head.length:
            self._parser = None  # it would wait for the body, which is read elsewhere
        return head

    def _plain(self, method: bytes, target: bytes, headers: list[Header], given: dict[bytes, bytes]) -> Head | None:
        """Most requests: no body, nothing that is asked for beyond an answer. None if it takes a second look."""
        if target[:1] != b"/" or b"#" in target:
            return None
        host = given.get(b"host")
        if host is None or host != self._host:
            if host is None or _HOST.fullmatch(host) is None:
                return None
            self._host = host
        options = given.get(b"connection", _KEEP_ALIVE)
        keep_alive = options == _KEEP_ALIVE or b"close" not in _tokens([options])
        forwarded = b"x-forwarded-for" in given or b"x-forwarded-proto" in given
        return Head(method.decode(), target, False, headers, 0, False, keep_alive, False, False, forwarded)


def _read_head(method: bytes, target: bytes, headers: list[Header], given: dict[bytes, bytes], *, http10: bool) -> Head:
    """What the fields amount to; ``given`` has the last of each name. Raises InvalidRequest, NotSupported."""
    if len(given) == len(headers):
        values = {name: [given[name]] for name in _NOTED & given.keys()}
    else:
        values = {name: [value for each, value in headers if each == name] for name in _NOTED & given.keys()}
    target = _origin_form(method, target, values.get(b"host", ()), headers, http10=http10)
    length, chunked = _framing(values, http10=http10) if values.keys() & _FRAMING else (0, False)
    tokens = _tokens(values[b"connection"]) if b"connection" in values else ()
    upgrade = values.get(b"upgrade")
    websocket = upgrade is not None and not http10 and b"upgrade" in tokens and b"websocket" in _tokens(upgrade)
    if websocket and (length or chunked):
        raise malformed("A request to switch protocols has no body here.")
    expect = values.get(b"expect")
    return Head(
        method.decode(),
        target,
        http10,
        headers,
        length,
        chunked,
        not http10 and b"close" not in tokens,
        expect is not None and not http10 and expect[-1].lower() == b"100-continue",
        websocket,
        not given.keys().isdisjoint(_FORWARDED),
    )


def _origin_form(method: bytes, target: bytes, hosts: Sequence[bytes], headers: list[Header], *, http10: bool) -> bytes:
    """The target without scheme and authority, which then replaces Host (RFC 9112 sections 3.2 and 3.2.2)."""
    if len(hosts) > 1 or (not hosts and not http10):
        raise malformed("A request names one Host.")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise malformed("The Host header is malformed.")
    if b"#" in target:
        target = target.partition(b"#")[0]
    if target.startswith(b"/"):
        return target
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or _HOST.fullmatch(absolute[1]) is None:
        raise malformed("The request's target is malformed.")
    headers[:] = [header for header in headers if header[0] != b"host"]
    headers.insert(0, (b"host", absolute[1]))
    return absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]


def _framing(values: dict[bytes, list[bytes]], *, http10: bool) -> tuple[int, bool]:
    """Length and chunkedness (RFC 9112 section 6.3), where at least one header states them."""
    lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
    if codings:
        if lengths:
            raise malformed("Content-Length and Transfer-Encoding exclude one another.")
        if http10:
            raise malformed("HTTP/1.0 has no Transfer-Encoding.")
        stated = [coding.strip().lower() for coding in b",".join(codings).split(b",")]
        if stated == [b"chunked"]:
            return 0, True
        if stated[-1] != b"chunked" or b"chunked" in stated[:-1]:
            raise malformed("The Transfer-Encoding is malformed.")
        raise NotSupported(UNKNOWN_ERROR, "The only transfer coding understood is chunked.")
    if len(lengths) > 1:
        raise malformed("Content-Length is given twice.")
    if _DIGITS.fullmatch(lengths[0]) is None:
        raise malformed("Content-Length is not a number.")
    return int(lengths[0]), False


def _tokens(values: list[bytes]) -> list[bytes]:
    return [token.strip() for value in values for token in value.lower().split(b",")]
