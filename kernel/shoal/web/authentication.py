"""Who asks, and whether they may: the same question for the control plane, the proxy and WebSockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from shoal.errors import Forbidden
from shoal.models import codes
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.plugin.interfaces.auth import PROXY, READ, WRITE
from shoal.proxy.asgi import Scope
from shoal.web.exchange import Exchange
from shoal.web.resources.pages import FILES

PUBLIC_PATHS = frozenset({"/health", "/version", "/ready", "/openapi.json", *FILES})
"""Open to everybody; compared whole, so that nothing else opens by beginning like one of them."""


class Authentication:
    """Asks every authenticator in turn (`shoal.plugin.interfaces.auth`); none at all allows everything."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def admit(self, scope: Scope, exchange: Exchange, kind: Literal["api", "proxy"]) -> None:
        """Note the principal in the exchange.

        Raises Unauthenticated, Unavailable (an authenticator cannot tell), Forbidden (the scope is lacking).
        """
        if not self._authenticators:
            return
        method = scope.get("method", "GET")
        request = AuthRequest(
            kind, scope["type"], method, scope["path"], exchange.credential, exchange.header, exchange.withhold
        )
        exchange.principal = principal = await self._principal(request)
        needed = PROXY if kind == "proxy" else READ if method in ("GET", "HEAD") else WRITE
        if needed not in principal.scopes:
            raise Forbidden(codes.INSUFFICIENT_SCOPE, f"This credential lacks the scope {needed!r}.")

    async def _principal(self, request: AuthRequest) -> Principal:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(request)
            if principal is not None:
                return principal
        first = self._authenticators[0]
        raise first.missing_for_proxy() if request.kind == "proxy" else first.missing()
