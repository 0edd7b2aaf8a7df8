"""Signed links: a preview host whose name itself is the leave to come in, until a moment.

The signature is the first 60 bits of HMAC-SHA256 in base 32, and can only be guessed by asking this server: a million
guesses per second would take some twenty thousand years.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from shoal_preview.hosts import PreviewTarget

LATEST: Final = 36**7 - 1
"""The last moment that fits the name, in the year 4453."""
_LENGTH: Final = 12
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Signer:
    """Signs and checks with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, sandbox_id: str, port: int, expires: int) -> PreviewTarget:
        """The place of a link that is good until ``expires``, Unix seconds from 1 to `LATEST`."""
        moment = _base36(expires)
        return PreviewTarget(port, sandbox_id, moment, self._signature(sandbox_id, port, moment))

    def vouches_for(self, place: PreviewTarget) -> bool:
        """Whether the signature is this key's, in constant time; whether its moment has passed is not asked."""
        expected = self._signature(place.sandbox_id, place.port, place.moment or "")
        return hmac.compare_digest(place.signature or "", expected)

    def _signature(self, sandbox_id: str, port: int, moment: str) -> str:
        message = f"shoal preview link v1\n{sandbox_id}\n{port}\n{moment}\n".encode()
        digest = hmac.digest(self._key, message, hashlib.sha256)
        return base64.b32encode(digest).decode().lower()[:_LENGTH]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
