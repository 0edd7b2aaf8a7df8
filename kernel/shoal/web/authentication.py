"""Who asks, and whether they may: the same question for the control plane, the proxy and WebSockets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from shoal.errors import Forbidden, Unauthenticated
from shoal.models import codes
from shoal.plugin.calls import contained, wrong
from shoal.plugin.components import NO_PLUGINS, part_of
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.plugin.interfaces.auth import PROXY
from shoal.proxy.asgi import Scope
from shoal.web.exchange import Exchange


class Authentication:
    """Asks every authenticator in turn (`shoal.plugin.interfaces.auth`); none at all allows everything."""

    def __init__(self, authenticators: Sequence[Authenticator], plugins: Mapping[int, str] = NO_PLUGINS) -> None:
        self._parts = [(each, part_of("authenticator", each, plugins)) for each in authenticators]

    async def admit(self, scope: Scope, exchange: Exchange, kind: Literal["api", "proxy"]) -> None:
        """Note the principal in the exchange. What scope an ``api`` request needs is judged once it is routed.

        Raises Unauthenticated, Unavailable (an authenticator cannot decide), Forbidden (the scope is lacking).
        """
        if not self._parts:
            return
        request = AuthRequest(
            kind, scope["type"], exchange.method, scope["path"], exchange.credential, exchange.header, exchange.withhold
        )
        exchange.principal = principal = await self._principal(request)
        if kind == "proxy":
            require_scope(principal, PROXY)

    async def _principal(self, request: AuthRequest) -> Principal:
        for authenticator, part in self._parts:
            with contained(part):
                principal: Any = await authenticator.authenticate(request)
            if isinstance(principal, Principal):
                return principal
            if principal is not None:
                raise wrong(part, f"returned {type(principal).__name__} from authenticate, and not a Principal or None")
        first, part = self._parts[0]
        with contained(part):
            missing: Any = first.missing_for_proxy() if request.kind == "proxy" else first.missing()
        if not isinstance(missing, Unauthenticated):
            raise wrong(part, f"returned {type(missing).__name__} from missing, and not an Unauthenticated")
        raise missing


def require_scope(principal: Principal, scope: str) -> None:
    """Raise Forbidden unless the principal has the scope."""
    if scope not in principal.scopes:
        raise Forbidden(codes.INSUFFICIENT_SCOPE, f"This credential lacks the scope {scope!r}.")
