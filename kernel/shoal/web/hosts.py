"""Requests whose Host header stands for a port of a sandbox: who claims the host."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.plugin.interfaces import HostTarget, Ingress
from shoal.web.exchange import Exchange

HOST_ROUTE = "{host}"
"""In the access log, of requests whose host stands for a port of a sandbox."""


class ClaimedHosts:
    """Asks the ingresses that claim hosts, in order; with none, every request goes by its path."""

    def __init__(self, ingresses: Sequence[Ingress]) -> None:
        self._claims = [ingress.claim for ingress in ingresses if ingress.claims]

    def claimed(self, exchange: Exchange) -> HostTarget | None:
        """The port that the Host header stands for. Raises Unauthenticated for a host that is signed wrongly."""
        host = exchange.header("host") if self._claims else None
        if host is None:
            return None
        return next((target for claim in self._claims if (target := claim(host)) is not None), None)
