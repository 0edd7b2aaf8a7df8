"""Who may come in: whose a host is, which origins are kept off, who asks, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shoal.plugin.components import NO_PLUGINS
from shoal.plugin.interfaces import Authenticator, HostTarget, Ingress
from shoal.proxy.asgi import Scope
from shoal.proxy.target import ProxyTarget, host_target
from shoal.web.authentication import Authentication
from shoal.web.exchange import Exchange
from shoal.web.hosts import HOST_ROUTE, ClaimedHosts
from shoal.web.paths import raw_path
from shoal.web.policing import PolicyGuard
from shoal.web.schemes import schemes_of
from shoal.web.strangers import Strangers


class Entrance:
    """The same for HTTP and WebSockets.

    Args:
        authenticators: asked in this order; none lets everybody in.
        ingresses: those that claim hosts are asked, in this order, whose a request's host is.
        strangers: keeps other origins off where nobody is asked for a key.
        guard: asks the policies; None where there is none.
        public: paths that need no credential.
        plugins: whose each component is, by its ``id()``.

    Raises ConfigError for a security scheme that is none.
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        ingresses: Sequence[Ingress] = (),
        strangers: Strangers | None = None,
        guard: PolicyGuard | None = None,
        public: frozenset[str] = frozenset(),
        plugins: Mapping[int, str] = NO_PLUGINS,
    ) -> None:
        self.authentication = Authentication(authenticators, plugins)
        self.credentials = schemes_of(authenticators, plugins)
        self.hosts = ClaimedHosts(ingresses, plugins)
        self.strangers = strangers
        self.guard = guard
        self.public = public

    async def admit_proxied(self, scope: Scope, exchange: Exchange, target: ProxyTarget) -> None:
        """Let a request for a sandbox's port in, or raise what an authenticator or a policy raises."""
        host = target.host
        if host is None or not (host.open or host.signed):
            await self.authentication.admit(scope, exchange, "proxy")
        if self.guard is not None:
            await self.guard.proxied(exchange, scope, target)

    async def admit_claimed(self, scope: Scope, exchange: Exchange, claimed: HostTarget) -> tuple[Scope, ProxyTarget]:
        """The same for a host that stands for a port. One that is open to all, or itself the proof, needs no
        credential.

        Returns the request as the sandbox may see it (`Exchange.onward`), and where it goes.
        """
        exchange.route, exchange.sandbox_id = HOST_ROUTE, claimed.sandbox_id
        exchange.leave_cors_alone()
        target = host_target(claimed, raw_path(scope))
        await self.admit_proxied(scope, exchange, target)
        return exchange.onward(scope), target

    def left(self, exchange: Exchange) -> None:
        """Notifies the policies that let the request pass of its end."""
        if exchange.admitted is not None and self.guard is not None:
            self.guard.finished(exchange.admitted)
