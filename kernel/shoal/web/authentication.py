"""Who asks, and whether they may: the same question for the control plane, the proxy and WebSockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from shoal.errors import Forbidden
from shoal.models import codes
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.plugin.interfaces.auth import PROXY
from shoal.proxy.asgi import Scope
from shoal.web.exchange import Exchange


class Authentication:
    """Asks every authenticator in turn (`shoal.plugin.interfaces.auth`); none at all allows everything."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def admit(self, scope: Scope, exchange: Exchange, kind: Literal["api", "proxy"]) -> None:
        """Note the principal in the exchange. What scope an ``api`` request needs is judged once it is routed.

        Raises Unauthenticated, Unavailable (an authenticator cannot decide), Forbidden (the scope is lacking).
        """
        if not self._authenticators:
            return
        request = AuthRequest(
            kind, scope["type"], exchange.method, scope["path"], exchange.credential, exchange.header, exchange.withhold
        )
        exchange.principal = principal = await self._principal(request)
        if kind == "proxy":
            require_scope(principal, PROXY)

    async def _principal(self, request: AuthRequest) -> Principal:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(request)
            if principal is not None:
                return principal
        first = self._authenticators[0]
        raise first.missing_for_proxy() if request.kind == "proxy" else first.missing()


def require_scope(principal: Principal, scope: str) -> None:
    """Raise Forbidden unless the principal has the scope."""
    if scope not in principal.scopes:
        raise Forbidden(codes.INSUFFICIENT_SCOPE, f"This credential lacks the scope {scope!r}.")
