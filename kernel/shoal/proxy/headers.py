"""Which headers travel through the proxy (docs/wire/api.md section 15): pure functions over raw header lists.

Names are expected in lower case, as ASGI has them. Repeats stay apart and in order. A header that frames the message
(Content-Length, Transfer-Encoding) is read, dropped and written anew, so that no request has two readings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shoal.errors import LoopDetected, NotSupported
from shoal.models.codes import PROXY_LOOP, UNKNOWN_ERROR
from shoal.models.opensandbox import API_KEY_HEADER, POLICY_TOKEN_HEADER, SECURE_ACCESS_HEADER
from shoal.proxy.failures import FramingError, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.proxy.asgi import Header, Headers

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
SECURE_ACCESS = SECURE_ACCESS_HEADER.lower().encode()
_POLICY_TOKEN = POLICY_TOKEN_HEADER.lower().encode()
RENEW = b"opensandbox-access-renew"
HOPS = b"x-shoal-hops"
"""How many times a request has come back to this proxy, or to another of its kind, by way of a sandbox."""
MAX_HOPS = 8
_OWN_MARK, _SCHEMES = b"x-forwarded-proto", (b"http", b"https")
"""What this proxy writes on every request, so that one that comes back has it: the others need no count."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_CREDENTIALS = frozenset({b"authorization", b"cookie", API_KEY_HEADER.lower().encode(), SECURE_ACCESS})

_SANDBOXES_OWN = frozenset({b"authorization", b"cookie"})
"""Credentials that are the application's, where the origin is; under a path they might be the control plane's."""

REQUEST_DROPPED = HOP_BY_HOP | FORWARDED | _CREDENTIALS | {b"host", b"content-length", RENEW, HOPS}
OWN_HOST_DROPPED = REQUEST_DROPPED - _SANDBOXES_OWN
ENDPOINT_DROPPED = HOP_BY_HOP | FORWARDED | {SECURE_ACCESS, _POLICY_TOKEN, b"host", b"content-length"}
RESPONSE_DROPPED = HOP_BY_HOP | {b"server", b"x-request-id"}
_LENGTHLESS = RESPONSE_DROPPED | {b"content-length"}
_EVENT_STREAM = b"text/event-stream"
_USUAL_OPTIONS = frozenset({b"keep-alive", b"close"})
_NO_NAMES = frozenset({b"", b"close", b"keep-alive", b"upgrade"})
"""Connection options that are no headers' names."""

_VISIBLE = bytes(range(0x21, 0x7F))
"""What a target consists of."""
_COLON = b": ".join
_DIGITS = re.compile(rb"[0-9]{1,18}")


class RequestHeaders:
    """A client's headers, sorted into what travels and what the proxy itself acts on.

    Attributes:
        kept: what travels.
        host: the inbound Host, None in HTTP/1.0 without one.
        content_length: None when the client named none.
        chunked: the body's length is not known beforehand.
        expects_continue: the client waits for a 100 before it sends its body.
        websocket: ``Upgrade: websocket`` is among the headers.
        hops: how many times it has been here before; None for a request that comes from no proxy.
        skip_renewal: ``OpenSandbox-Access-Renew: skip``.
        secure_access: the token that the caller presents.
    """

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "hops",
        "host",
        "kept",
        "secure_access",
        "skip_renewal",
        "websocket",
    )

    def __init__(self) -> None:
        self.kept: list[Header] = []
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.hops: int | None = None
        self.websocket = False
        self.skip_renewal = False
        self.secure_access: bytes | None = None

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)


def read_request(headers: Headers, *, own_host: bool = False) -> RequestHeaders:
    """Sort the client's headers.

    Args:
        own_host: the request came to a host that is the sandbox's own.

    Raises InvalidRequest when two headers frame the body differently, NotSupported for a transfer coding that is not
    chunked, LoopDetected for a request that has been here `MAX_HOPS` times.
    """
    request = RequestHeaders()
    kept = request.kept
    named: set[bytes] = set()
    dropped = OWN_HOST_DROPPED if own_host else REQUEST_DROPPED
    for name, value in headers:
        if name not in dropped:
            kept.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                request.expects_continue = True
        elif name == b"connection":
            named |= connection_options(value)
        else:
            _act_on(request, name, value)
    if request.chunked and request.content_length is not None:
        raise refused("Content-Length and Transfer-Encoding exclude one another.")
    if named:
        request.kept = [header for header in kept if header[0] not in named]
    return request


def _act_on(request: RequestHeaders, name: bytes, value: bytes) -> None:
    """Take from a dropped header what the proxy itself needs."""
    if name == b"host":
        request.host = request.host or value
    elif name == b"content-length":
        length = _content_length(value)
        if request.content_length not in (None, length):
            raise refused("Content-Length is given twice.")
        request.content_length = length
    elif name == b"transfer-encoding":
        if request.chunked or value.strip().lower() != b"chunked":
            raise NotSupported(UNKNOWN_ERROR, "The only transfer coding understood is chunked.")
        request.chunked = True
    elif name == b"upgrade":
        request.websocket |= b"websocket" in _tokens(value)
    elif name == RENEW:
        request.skip_renewal |= value == b"skip"
    elif name == SECURE_ACCESS:
        request.secure_access = value
    elif name == HOPS:
        request.hops = _hops(value)
    elif name == _OWN_MARK and value in _SCHEMES:
        request.hops = request.hops or 0


def _content_length(value: bytes) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise refused("Content-Length is not a number.")
    return int(value)


def _hops(value: bytes) -> int:
    hops = int(value) if _DIGITS.fullmatch(value) else 0
    if hops >= MAX_HOPS:
        raise LoopDetected(PROXY_LOOP, "The request comes back to this proxy again and again.")
    return hops


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip().lower() for token in value.split(b",")}


def connection_options(value: bytes) -> set[bytes]:
    """The header names that one Connection header calls hop-by-hop."""
    return set() if value in _USUAL_OPTIONS else _tokens(value) - _NO_NAMES


def forwarded_headers(scheme: str, host: bytes | None, client: tuple[str, int] | None) -> list[Header]:
    """X-Forwarded-* rebuilt from what this server saw itself; what it did not see is left out."""
    headers = [(_OWN_MARK, b"https" if scheme in ("https", "wss") else b"http")]
    if host is not None:
        headers.append((b"x-forwarded-host", host))
    if client is not None:
        headers.append((b"x-forwarded-for", client[0].encode("ascii", "replace")))
    return headers


def hop_count(request: RequestHeaders) -> list[Header]:
    """The count that stops a loop; none on a request that no proxy has handled yet."""
    return [] if request.hops is None else [(HOPS, b"%d" % (request.hops + 1))]


def with_endpoint_headers(kept: list[Header], endpoint: Headers) -> list[Header]:
    """``kept`` and the endpoint's own headers, which replace a caller's of the same name."""
    own = [(name.lower(), value) for name, value in endpoint]
    return in_place_of(kept, [header for header in own if header[0] not in ENDPOINT_DROPPED])


def in_place_of(kept: list[Header], own: Sequence[Header]) -> list[Header]:
    """``own``, and what of ``kept`` has other names."""
    names = {name for name, _ in own}
    return [*(header for header in kept if header[0] not in names), *own]


def request_head(method: bytes, target: bytes, authority: bytes, headers: Sequence[Header]) -> bytes:
    """The request line and headers, to the blank line.

    Raises InvalidRequest when a target or header would say more than one line; servers refuse those before they get
    here, and no second one may rely on it.
    """
    if not target or target.translate(None, _VISIBLE):
        raise refused("The path holds a character that must be escaped.")
    first = b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, authority)
    head = b"\r\n".join([first, *map(_COLON, headers), b"", b""])
    lines = len(headers) + 3
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise refused("A header holds a character that no header may hold.")
    return head


def framing(request: RequestHeaders) -> list[Header]:
    """The one header that says where the request's body ends; none when the client sent none."""
    if request.chunked:
        return [(b"transfer-encoding", b"chunked")]
    if request.content_length is not None:
        return [(b"content-length", b"%d" % request.content_length)]
    return []


def response_headers(status: int, headers: Headers, prefix: bytes) -> list[Header]:
    """What of an upstream's answer travels back.

    Args:
        prefix: how the client reaches the sandbox's root, put before a Location that begins with a single slash.
    """
    # Without a body, uvicorn holds a Content-Length to be a promise of one and calls the answer too short.
    dropped = _LENGTHLESS if status in (204, 304) else RESPONSE_DROPPED
    named: set[bytes] = set()
    kept: list[Header] = []
    for name, value in headers:
        if name in dropped:
            if name == b"connection":
                named |= connection_options(value)
        elif name == b"location" and value[:1] == b"/" and value[1:2] != b"/":
            kept.append((name, prefix + value))
        else:
            kept.append((name, value))
    return [header for header in kept if header[0] not in named] if named else kept


def response_framing(headers: Headers) -> tuple[int | None, bool]:
    """Length and chunkedness of an answer, as its headers state them.

    Raises FramingError when they contradict one another, or name a transfer coding that nobody asked for.
    """
    stated = [header for header in headers if header[0] in _FRAMING]
    if not stated:
        return None, False
    if len(stated) > 1:
        raise FramingError("more than one header frames the body")
    name, value = stated[0]
    if name == b"transfer-encoding":
        if value.strip().lower() != b"chunked":
            raise FramingError("a transfer coding besides chunked")
        return None, True
    if _DIGITS.fullmatch(value.strip()) is None:
        raise FramingError("a Content-Length that is not a number")
    return int(value), False


def is_event_stream(headers: Headers) -> bool:
    """Whether an answer is ``text/event-stream``."""
    kinds = [value for name, value in headers if name == b"content-type"]
    return any(kind.lower().startswith(_EVENT_STREAM) for kind in kinds) if kinds else False
