"""The ASGI types that the proxy speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = Iterable[Header]
"""Names in lower case, repeats apart and in order."""
