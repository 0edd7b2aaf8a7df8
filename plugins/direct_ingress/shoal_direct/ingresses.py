"""The two ways in that need nothing in between (docs/wire/api.md section 8)."""

from __future__ import annotations

from typing import Final

from shoal.plugin.interfaces import Endpoint, EndpointQuery, Ingress

_SCHEMES: Final = ("http://", "https://")


class DirectIngress(Ingress):
    """The sandbox's own address, as clients reach it; this server's proxy for one that has none.

    Args:
        eip: as `ServerProxyIngress`.
    """

    name = "direct"
    priority = 0

    def __init__(self, eip: str | None = None) -> None:
        self._base = without_scheme(eip or "")

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """``host:port``, or the proxy's path; None if the workload has no address yet."""
        address = query.workload.public_address(query.port)
        if address is None and query.workload.tunnelled:
            address = proxy_path(self._base or query.base, query)
        return None if address is None else Endpoint(endpoint=address)


class ServerProxyIngress(Ingress):
    """This server's own proxy, for clients that ask for it.

    Args:
        eip: how clients reach this server (``server.eip``); blank or None leaves it to the request's Host.
    """

    name = "server-proxy"
    priority = 100

    def __init__(self, eip: str | None) -> None:
        self._base = without_scheme(eip or "")

    def needs_address(self, query: EndpointQuery) -> bool:
        """The API has the sandbox's own address resolved first, so that its errors show."""
        return query.use_server_proxy

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """``{base}/sandboxes/{id}/proxy/{port}``, whatever the ingress mode; None unless it was asked for."""
        if not query.use_server_proxy:
            return None
        return Endpoint(endpoint=proxy_path(self._base or query.base, query))


def proxy_path(base: str, query: EndpointQuery) -> str:
    """The port behind this server's proxy."""
    return f"{base.rstrip('/')}/sandboxes/{query.record.id}/proxy/{query.port}"


def without_scheme(address: str) -> str:
    """``host[:port][/path]`` of an address that may be a URL; clients put their own scheme before it."""
    address = address.strip()
    for scheme in _SCHEMES:
        if address.lower().startswith(scheme):
            address = address[len(scheme) :]
    return address.rstrip("/")
