"""`ConnectionLimits`: what a client may take, in bytes, fields, seconds and connections."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from shoal.config.settings import ServerSettings

_MAX_CONNECTIONS: Final = 65536
_MIN_CONNECTIONS: Final = 64


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """The bounds of one server; a number of connections or requests that is 0 bounds nothing.

    Attributes:
        head_bytes: of a request's head; of the trailers of a body, and of a line between its chunks, as well.
        head_fields: header fields of a request, and trailers of a body.
        head_seconds: for the whole head, from the connection's start or, on a kept one, from the head's first byte.
        idle_seconds: between an answer and the next request.
        body_seconds: of silence while the application waits for the body.
        send_seconds: of standstill while the client does not take the answer.
        requests: in flight at once.
        connections: open at once.
        share: the part of requests and connections that one address may hold.
    """

    head_bytes: int = 65536
    head_fields: int = 200
    head_seconds: float = 20.0
    idle_seconds: float = 30.0
    body_seconds: float = 30.0
    send_seconds: float = 60.0
    requests: int = 1024
    connections: int = 0
    share: float = 0.5

    @classmethod
    def of(cls, settings: ServerSettings) -> ConnectionLimits:
        """The limits that ``[server]`` sets."""
        connections = settings.limit_connections
        return cls(
            head_bytes=settings.max_head_bytes,
            head_fields=settings.max_head_fields,
            head_seconds=settings.timeout_head,
            idle_seconds=settings.timeout_keep_alive,
            body_seconds=settings.timeout_body,
            send_seconds=settings.timeout_send,
            requests=settings.limit_concurrency or 0,
            connections=_half_the_descriptors() if connections is None else connections,
            share=settings.limit_address_share,
        )

    def part(self, total: int) -> int:
        """What one address may hold of ``total``; 0 = any number."""
        return max(1, int(total * self.share)) if total and self.share < 1 else 0


def _half_the_descriptors() -> int:
    """The other half is for upstream connections, engines and files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return min(_MAX_CONNECTIONS, max(_MIN_CONNECTIONS, soft // 2))
