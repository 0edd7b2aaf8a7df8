"""Keys as SHA-256 digests, the only form in which this plugin holds them once they are read.

Keys are long random texts, so a plain hash cannot be turned back by guessing; a slow password hash would only cost time
on each request. Looking up the digest of what a caller sends takes a time that reveals nothing of the keys: whoever
changes one character of a guess changes the whole digest.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

HASH_FORM: Final = "'sha256:' and 64 hexadecimal digits"
HASH_PREFIX: Final = "sha256:"

_HEX_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


def digest(key: str) -> bytes:
    """Of a key in configuration: its UTF-8 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def digest_of_header(value: str) -> bytes:
    """Of a key in a header, whose bytes the server shows as Latin-1."""
    try:
        return hashlib.sha256(value.encode("latin-1")).digest()
    except UnicodeEncodeError:
        return digest(value)


def parse_hash(text: str) -> bytes | None:
    """The digest that ``sha256:<hex>`` names; None if the text has another form."""
    hexadecimal = text.removeprefix(HASH_PREFIX)
    if hexadecimal == text or _HEX_DIGEST.fullmatch(hexadecimal) is None:
        return None
    return bytes.fromhex(hexadecimal)
