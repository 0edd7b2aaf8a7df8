"""Signed routes: the token that lets a request through the gateway until a moment (docs/wire/kubernetes.md section 15).

::

    token      <id>-<port>-<E>-<signature>
    E          the moment in Unix seconds, base 36
    signature  8 hex digits of SHA-256(length ‖ key ‖ length ‖ message), then the key's id
    message    v1, short, <id>, <port>, E: each a line
"""

from __future__ import annotations

import base64
import hashlib

from msgspec import Struct

LATEST = 2**64 - 1
"""The last moment that the gateway can read."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SIGNATURE_DIGITS = 8


class SigningKey(Struct, frozen=True):
    """One key; ``id`` is a single character."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey(id={self.id!r})"


def decode_key(text: str) -> bytes:
    """The bytes of a key in base64, whose padding may be left out. Raises ValueError, without the text."""
    text = text.strip().rstrip("=")
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("the key is not base64") from None
    if not secret:
        raise ValueError("the key is empty")
    return secret


def is_padded(text: str) -> bool:
    """Whether base64 ends with the ``=`` that its length wants."""
    return len(text.strip()) % 4 == 0


def base36(number: int) -> str:
    """Lower case, without leading zeros; zero is ``0``. ``number`` must not be negative."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


def signature(key: SigningKey, sandbox_id: str, port: int, expires: str) -> str:
    """Nine characters that stand for the key's holder's word; ``expires`` in base 36."""
    message = f"v1\nshort\n{sandbox_id}\n{port}\n{expires}\n".encode()
    digest = hashlib.sha256()
    for part in (key.secret, message):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.hexdigest()[:_SIGNATURE_DIGITS] + key.id
