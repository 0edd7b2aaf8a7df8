"""The head of a request (RFC 9112): a strict reading, without the leniencies that tell two servers apart.

Lines end with CRLF, nothing is folded, no space stands before a colon. Content-Length and Transfer-Encoding are read
here once, for everybody: what contradicts itself is refused.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shoal.errors import InvalidRequest, NotSupported
from shoal.models.codes import BAD_REQUEST, UNKNOWN_ERROR
from shoal.proxy.asgi import Header

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINE: Final = re.compile(rb"([A-Z][A-Z\-]{0,31}+) ([!-~]++) HTTP/1\.([01])\r\n")
FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([\t -~\x80-\xff]*+)\r\n|(?s:.)++")
"""A header field; or, without a name, all that follows and is none."""
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_HOST: Final = re.compile(rb"(?:[0-9A-Za-z\-._~!$&'()*+,;=%]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5}+)?")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*+)(.*+)")
_NOTED: Final = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"})


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


def malformed(why: str) -> InvalidRequest:
    """The 400 of a request that HTTP does not allow."""
    return InvalidRequest(BAD_REQUEST, why)


def read_fields(block: bytes, start: int = 0) -> list[Header]:
    """Lines of header fields, each with its CRLF. Raises InvalidRequest."""
    fields = FIELD.findall(block, start)
    if fields and not fields[-1][0]:
        raise malformed("A header line is malformed.")
    return [(name.lower(), value.rstrip(b" \t")) for name, value in fields]


def read_head(block: bytes) -> Head:
    """The head, each line with its CRLF, without the blank one. Raises InvalidRequest, NotSupported."""
    line = _LINE.match(block)
    if line is None:
        raise malformed("The request line is malformed.")
    method, target, minor = line.groups()
    http10 = minor == b"0"
    headers = read_fields(block, line.end())
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options = upgrade = b""
    expects_continue = False
    for name, value in headers:
        if name not in _NOTED:
            continue
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            options += value.lower() + b","
        elif name == b"upgrade":
            upgrade += value.lower() + b","
        else:
            expects_continue = not http10 and value.lower() == b"100-continue"
    target = _origin_form(method, target, hosts, headers, http10=http10)
    length, chunked = _framing(lengths, codings, http10=http10) if lengths or codings else (0, False)
    tokens = _tokens(options) if options else ()
    websocket = not http10 and bool(upgrade) and b"upgrade" in tokens and b"websocket" in _tokens(upgrade)
    if websocket and (length or chunked):
        raise malformed("A request to switch protocols has no body here.")
    keep_alive = not http10 and b"close" not in tokens
    return Head(method.decode(), target, http10, headers, length, chunked, keep_alive, expects_continue, websocket)


def _origin_form(method: bytes, target: bytes, hosts: list[bytes], headers: list[Header], *, http10: bool) -> bytes:
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


def _framing(lengths: list[bytes], codings: list[bytes], *, http10: bool) -> tuple[int, bool]:
    """Length and chunkedness (RFC 9112 section 6.3), where at least one header states them."""
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


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip() for token in value.split(b",")]
