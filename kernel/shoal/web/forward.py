"""`Forward`: how a route hands its request to the proxy, once it has looked at it."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.proxy.asgi import TARGET, Header, Message, Receive, Scope
from shoal.proxy.target import ProxyTarget

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Forward(Exception):
    """The rest of the request is the proxy's. Raised by a route before it answers, as errors are, caught by the edge.

    Args:
        target: where it goes.
        headers: the server's own, in place of any of those names that the client sent; may hold secrets.
        body: the client's, which the route has read; empty if there was none.
    """

    def __init__(self, target: ProxyTarget, headers: Sequence[Header], body: bytes) -> None:
        super().__init__(f"forward to port {target.port}")
        self.target = target
        self.headers = headers
        self._body = body

    def scope(self, scope: Scope) -> Scope:
        """The client's scope without its query, and framed as what was read."""
        headers = [header for header in scope["headers"] if header[0] not in _FRAMING]
        if self._body:
            headers.append((b"content-length", b"%d" % len(self._body)))
        return {**scope, "headers": headers, "query_string": b"", TARGET: b""}

    def receive(self, receive: Receive) -> Receive:
        """The client's ``receive``, with the body given back before what comes next."""
        again: list[Message] = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def replay() -> Message:
            return again.pop() if again else await receive()

        return replay
