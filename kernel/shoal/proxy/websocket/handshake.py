"""What the two opening handshakes say (RFC 6455 section 4, docs/wire/api.md section 16): pure functions.

Each leg has a key of its own. Subprotocols and permessage-deflate are agreed between the client and the sandbox: what
the one offers is offered to the other, and what the other chooses is answered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.proxy.failures import response_failed
from shoal.proxy.headers import response_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.proxy.asgi import Header, Headers

EXTENSIONS: Final = b"sec-websocket-extensions"
PROTOCOL: Final = b"sec-websocket-protocol"
_OWN: Final = b"sec-websocket-"
_ACCEPT: Final = b"sec-websocket-accept"
_DEFLATE: Final = b"permessage-deflate"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"


class Refusal(NamedTuple):
    """Why a request is no opening handshake: status, what to say, and a header that helps."""

    status: int
    message: str
    headers: tuple[Header, ...] = ()


class Opening(NamedTuple):
    """The sandbox's answer, as the client gets it.

    Attributes:
        subprotocol: the chosen one; None for none.
        headers: what else travels back, the extensions among it.
        compressed: permessage-deflate was agreed on.
    """

    subprotocol: bytes | None
    headers: list[Header]
    compressed: bool


def refusal(method: bytes, headers: dict[bytes, bytes]) -> Refusal | None:
    """What is wrong with a client's request to upgrade; None if nothing is."""
    if method != b"GET":
        return Refusal(400, "A WebSocket is opened by GET.")
    if headers.get(b"sec-websocket-version", b"").strip() != _VERSION:
        return Refusal(426, "The WebSocket version must be 13.", ((b"sec-websocket-version", _VERSION),))
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b"").strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 16:
        return Refusal(400, "Sec-WebSocket-Key must hold 16 bytes.")
    return None


def new_key() -> bytes:
    """A key for an opening handshake."""
    return base64.b64encode(os.urandom(16))


def accept_value(key: bytes) -> bytes:
    """The answer to a key."""
    return base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())


def elements(headers: Headers, name: bytes) -> list[bytes]:
    """The elements of a header that is a list, over all its repeats."""
    values = (value for header, value in headers if header == name)
    return [part.strip() for value in values for part in value.split(b",") if part.strip()]


def request_headers(kept: Sequence[Header], key: bytes) -> list[Header]:
    """A client's headers as the sandbox gets them: its offers, but the handshake this server's own."""
    headers = [header for header in kept if not header[0].startswith(_OWN)]
    headers += [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", _VERSION),
        (b"sec-websocket-key", key),
    ]
    subprotocols = elements(kept, PROTOCOL)
    if subprotocols:
        headers.append((PROTOCOL, b", ".join(subprotocols)))
    offers = _deflate_offers(kept)
    if offers:
        headers.append((EXTENSIONS, b", ".join(offers)))
    return headers


def read_opening(headers: Sequence[Header], key: bytes, offered: Sequence[Header]) -> Opening:
    """The sandbox's 101, checked against what it was asked. Raises BadGateway."""
    given = dict(headers)
    upgraded = given.get(b"upgrade", b"").strip().lower() == b"websocket"
    if not upgraded or given.get(_ACCEPT, b"").strip() != accept_value(key):
        raise response_failed("did not complete the WebSocket handshake")
    chosen, agreed = elements(headers, PROTOCOL), elements(headers, EXTENSIONS)
    if len(chosen) > 1 or not set(chosen) <= set(elements(offered, PROTOCOL)):
        raise response_failed("chose a WebSocket subprotocol that was not offered")
    if len(agreed) > 1 or not all(map(_is_deflate, agreed)) or (agreed and not _deflate_offers(offered)):
        raise response_failed("chose a WebSocket extension that was not offered")
    back = [header for header in response_headers(101, headers, b"") if _travels_back(header[0])]
    back += [(EXTENSIONS, value) for value in agreed]
    return Opening(chosen[0] if chosen else None, back, bool(agreed))


def switching_head(key: bytes, subprotocol: bytes | None, headers: Iterable[Header]) -> bytes:
    """The head of the 101 for the client."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"connection: Upgrade",
        _ACCEPT + b": " + accept_value(key),
    ]
    if subprotocol is not None:
        lines.append(PROTOCOL + b": " + subprotocol)
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])


def _deflate_offers(headers: Sequence[Header]) -> list[bytes]:
    return [offer for offer in elements(headers, EXTENSIONS) if _is_deflate(offer)]


def _is_deflate(extension: bytes) -> bool:
    return extension.partition(b";")[0].strip().lower() == _DEFLATE


def _travels_back(name: bytes) -> bool:
    return not name.startswith(_OWN) and name not in (b"content-length", b"date")
