"""`WebSocketProxy`: one WebSocket of a client, carried to a port of a sandbox (docs/wire/api.md section 16).

The client is accepted only after the sandbox has accepted. No redirect is followed and no environment proxy is used.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from shoal.errors import RateLimited
from shoal.models.codes import UNKNOWN_ERROR
from shoal.proxy.asgi import query_part
from shoal.proxy.failures import ServiceFailed, ServiceFailure, refused
from shoal.proxy.headers import forwarded_headers, hop_count, read_request, request_head, with_endpoint_headers
from shoal.proxy.http import upstream_host
from shoal.proxy.pool import destination
from shoal.proxy.resolve import resolve
from shoal.proxy.websocket.handshake import new_key, read_opening, request_headers
from shoal.proxy.websocket.relay import Relay
from shoal.proxy.websocket.upstream import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.config.settings import ProxySettings
    from shoal.proxy.asgi import Header, Scope
    from shoal.proxy.headers import RequestHeaders
    from shoal.proxy.pool import Destination
    from shoal.proxy.seam import Directory
    from shoal.proxy.target import ProxyTarget
    from shoal.proxy.websocket.handshake import Opening
    from shoal.proxy.websocket.leg import Leg
    from shoal.proxy.websocket.upstream import Upstream

SOCKET: Final = "shoal.websocket"
"""The ASGI extension by which `UpgradeProtocol` offers the connection itself: a `ClientSocket`."""
RETRY_SECONDS: Final = 5.0


class ClientSocket(Protocol):
    """A client that asked for a WebSocket and waits for an answer."""

    @property
    def accepted(self) -> bool:
        """Whether the handshake was answered."""
        ...

    def accept(self, subprotocol: bytes | None, headers: Sequence[Header]) -> None:
        """Answer the handshake; ``headers`` besides those that make it one."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Refuse: accept if that has not happened, then close, so that the client can read why."""
        ...

    def switch(self, leg: Leg) -> bytes:
        """From now on the connection is the leg's; returns what came beyond the handshake."""
        ...


class WebSocketProxy:
    """The WebSockets of one server.

    Args:
        directory: who knows the sandboxes' addresses.
        settings: limits and times.
    """

    def __init__(self, directory: Directory, settings: ProxySettings) -> None:
        self._directory = directory
        self._settings = settings
        self._relays: set[Relay] = set()

    async def aclose(self, seconds: float) -> None:
        """Say goodbye on every WebSocket (1012 to clients, 1001 to sandboxes), and wait so long for the answers."""
        for relay in self._relays:
            relay.shut()
        if self._relays:
            await asyncio.wait([relay.ended for relay in self._relays], timeout=seconds)

    async def __call__(self, scope: Scope, target: ProxyTarget, socket: ClientSocket, extra: Sequence[Header]) -> int:
        """Carry one connection of scope type ``websocket`` to its end; the close code that ended it, 1006 for none.

        ``extra`` headers go to the client with the answer.

        Raises, before it was accepted, InvalidRequest, Unauthenticated, RateLimited, LoopDetected, BadGateway
        (`UpstreamRefused` when the sandbox answered with something else), GatewayTimeout and what the directory raises.
        """
        if len(self._relays) >= self._settings.max_websockets:
            raise RateLimited(UNKNOWN_ERROR, "Too many WebSockets are open.", retry_after=RETRY_SECONDS)
        request = read_request(scope["headers"], own_host=target.host is not None)
        if request.has_body:
            raise refused("A WebSocket handshake has no body.")
        address, endpoint_headers = await resolve(self._directory, target, request)
        place = destination(address)
        key = new_key()
        head = _head(scope, request, target, place, endpoint_headers, key)
        notify = None if request.skip_renewal else partial(self._notify, target)
        if notify is not None:
            notify()
        try:
            upstream, opening = await self._open(place, head, key, request)
        except ServiceFailure as failure:
            raise failure.at(target.port)  # noqa: B904 - the same one
        socket.accept(opening.subprotocol, [*opening.headers, *extra])
        return await self._relay(socket, upstream, compressed=opening.compressed, notify=notify)

    async def _open(
        self, place: Destination, head: bytes, key: bytes, request: RequestHeaders
    ) -> tuple[Upstream, Opening]:
        upstream, answer = await connect(place, head, self._settings.connect_timeout_seconds, self._directory.connect)
        try:
            return upstream, read_opening(answer, key, request.kept)
        except ServiceFailed:
            upstream.abort()
            raise

    async def _relay(
        self, socket: ClientSocket, upstream: Upstream, *, compressed: bool, notify: Callable[[], None] | None
    ) -> int:
        relay = Relay(
            limit=self._settings.websocket_max_message_bytes,
            ping_seconds=self._settings.websocket_ping_seconds,
            compressed=compressed,
            notify=notify,
        )
        self._relays.add(relay)
        try:
            await relay.run(socket.switch(relay.client), upstream.switch(relay.upstream))
        finally:
            self._relays.discard(relay)
        return relay.code

    def _notify(self, target: ProxyTarget) -> None:
        self._directory.accessed(target.sandbox_id, target.port, "websocket")


def _head(
    scope: Scope,
    request: RequestHeaders,
    target: ProxyTarget,
    place: Destination,
    endpoint_headers: list[Header],
    key: bytes,
) -> bytes:
    """The handshake as the sandbox gets it; path and query byte for byte."""
    headers = request_headers(with_endpoint_headers(request.kept, endpoint_headers), key)
    headers += forwarded_headers(scope["scheme"], request.host, scope["client"]) + hop_count(request)
    path = place.prefix + target.path + query_part(scope)
    return request_head(b"GET", path, upstream_host(target, request, place.authority), headers)
