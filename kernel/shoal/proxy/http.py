"""`HttpProxy`: one ASGI request, carried to a port of a sandbox and back (docs/wire/api.md section 15).

Nothing is invented and nothing interpreted: no User-Agent, no Accept-Encoding, no cookie jar, no redirect followed, no
environment proxy. Only a Location that begins at the service's root is led back through the proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.proxy.asgi import query_part
from shoal.proxy.client import Client, Graces
from shoal.proxy.exchange import ProxiedExchange
from shoal.proxy.failures import ServiceFailure, refused
from shoal.proxy.headers import (
    forwarded_headers,
    framing,
    hop_count,
    in_place_of,
    read_request,
    request_head,
    with_endpoint_headers,
)
from shoal.proxy.pool import ConnectionPool, destination
from shoal.proxy.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.config.settings import ProxySettings
    from shoal.proxy.asgi import Header, Receive, Scope, Send
    from shoal.proxy.headers import RequestHeaders
    from shoal.proxy.seam import Directory
    from shoal.proxy.target import ProxyTarget


class HttpProxy:
    """The proxy of one server.

    Args:
        directory: who knows the sandboxes' addresses.
        settings: time-outs, and connections per sandbox.
        eip: how clients reach this server, ``[scheme://]host[:port][/path]``; its path leads rewritten Locations.
    """

    def __init__(self, directory: Directory, settings: ProxySettings, *, eip: str | None = None) -> None:
        self._directory = directory
        self._response_limit = settings.response_timeout_seconds
        self._read_limit = settings.read_timeout_seconds
        self._base = eip_path(eip) if eip else None
        self._graces = Graces()
        self.pool = ConnectionPool(
            connect=directory.connect,
            connect_limit=settings.connect_timeout_seconds,
            idle_limit=settings.idle_connection_seconds,
            per_address=settings.max_connections_per_sandbox,
        )

    def drop(self, sandbox_id: str) -> None:
        """The sandbox does not run any more: close the idle connections to it that are its runtime's."""
        self.pool.drop(sandbox_id)

    async def aclose(self) -> None:
        """Close idle connections; exchanges under way go on to their end."""
        await self.pool.aclose()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, target: ProxyTarget, own_headers: Sequence[Header] = ()
    ) -> None:
        """Answer one request of scope type ``http``; returns without an answer when the client left first.

        ``own_headers`` are sent in place of any of those names that the client sent.

        Raises, before anything was sent, InvalidRequest, Unauthenticated, NotSupported, LoopDetected, BadGateway,
        GatewayTimeout, InternalError and what the directory raises; after that, ResponseCut.
        """
        request = read_request(scope["headers"], own_host=target.host is not None)
        if request.websocket:
            raise refused("A plain request cannot be upgraded to a WebSocket.")
        with Client(receive, self._graces) as client:
            if not request.has_body:
                client.watch()
            address, endpoint_headers = await resolve(self._directory, target, request)
            request.kept = in_place_of(request.kept, own_headers) if own_headers else request.kept
            place = destination(address)
            authority = upstream_host(target, request, place.authority)
            head = self._head(scope, request, authority, place.prefix + target.path, endpoint_headers)
            exchange = ProxiedExchange(
                self.pool,
                place,
                client,
                response_limit=self._response_limit,
                read_limit=self._read_limit,
                kept=self._directory.keeps_connections(target.sandbox_id, target.port),
            )
            base = target.mount if self._base is None or target.host is not None else self._base
            if not request.skip_renewal:
                self._directory.accessed(target.sandbox_id, target.port, "http")
            try:
                answer = await exchange.ask(scope["method"], head, request)
                await exchange.answer(answer, send, base + target.route)
            except ServiceFailure as failure:
                raise failure.at(target.port)  # noqa: B904 - the same one
            finally:
                if not request.skip_renewal:
                    self._directory.finished(target.sandbox_id)

    def _head(
        self, scope: Scope, request: RequestHeaders, authority: bytes, path: bytes, endpoint_headers: list[Header]
    ) -> bytes:
        """The request's head as the upstream gets it; path and query byte for byte."""
        headers = with_endpoint_headers(request.kept, endpoint_headers) if endpoint_headers else request.kept
        forwarded = forwarded_headers(scope["scheme"], request.host, scope["client"])
        target = path + query_part(scope)
        lines = [*headers, *forwarded, *hop_count(request), *framing(request)]
        return request_head(scope["method"].encode(), target, authority, lines)


def upstream_host(target: ProxyTarget, request: RequestHeaders, authority: bytes) -> bytes:
    """The Host header for the upstream: its own address, or the client's word where that host is the sandbox's own.

    There the application sees the origin that the browser sees, and compares it with Origin as it always does.
    """
    return authority if target.host is None else request.host or authority


def eip_path(eip: str) -> bytes:
    """The path in an ``eip``, without a trailing slash: ``https://a.example/base/`` is ``/base``."""
    _, _, rest = eip.strip().rpartition("://")
    _, slash, path = rest.partition("/")
    return (slash + path).rstrip("/").encode()
