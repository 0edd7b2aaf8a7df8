"""Digests by the interpreter's own modules: `hashlib` would load OpenSSL's library, 3.7 MB of memory."""

from __future__ import annotations

from _sha1 import sha1  # type: ignore[import-not-found]  # no stubs

try:
    from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12 and newer
except ImportError:
    from _sha256 import sha256  # type: ignore[import-not-found]

__all__ = ["sha1", "sha256"]
