"""Requests whose Host header stands for a port of a sandbox: who claims the host, and who may come in."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.plugin.interfaces import HostTarget, Ingress
from shoal.proxy.asgi import Scope
from shoal.proxy.target import ProxyTarget, host_target
from shoal.web.authentication import Authentication
from shoal.web.exchange import Exchange
from shoal.web.paths import raw_path

HOST_ROUTE = "{host}"
"""In the access log, of requests whose host stands for a port of a sandbox."""


class ClaimedHosts:
    """Asks the ingresses that claim hosts, in order; with none, every request goes by its path."""

    def __init__(self, ingresses: Sequence[Ingress], authentication: Authentication) -> None:
        self._claims = [ingress.claim for ingress in ingresses if ingress.claims]
        self._authentication = authentication

    def claimed(self, exchange: Exchange) -> HostTarget | None:
        """The port that the Host header stands for. Raises Unauthenticated for a host that is signed wrongly."""
        host = exchange.header("host") if self._claims else None
        if host is None:
            return None
        return next((target for claim in self._claims if (target := claim(host)) is not None), None)

    async def admit(self, scope: Scope, exchange: Exchange, claimed: HostTarget) -> tuple[Scope, ProxyTarget]:
        """Ask who comes, unless the host is open to all or is itself the proof.

        Returns the request as the sandbox may see it (`Exchange.onward`), and where it goes.
        """
        exchange.route, exchange.sandbox_id = HOST_ROUTE, claimed.sandbox_id
        exchange.leave_cors_alone()
        target = host_target(claimed, raw_path(scope))
        if not (claimed.open or claimed.signed):
            await self._authentication.admit(scope, exchange, "proxy")
        return exchange.onward(scope), target
