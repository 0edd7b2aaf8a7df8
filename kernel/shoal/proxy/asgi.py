"""The ASGI types that the proxy speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

TARGET = "shoal.target"
"""Key of a scope: the request's target as it came, in origin form; distinguishes an empty query from none."""

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = Iterable[Header]
"""Names in lower case, repeats apart and in order."""


def query_part(scope: Scope) -> bytes:
    """The query with its question mark, as the client wrote it; empty without one."""
    query: bytes = scope["query_string"]
    if query:
        return b"?" + query
    return b"?" if scope.get(TARGET, b"").endswith(b"?") else b""
