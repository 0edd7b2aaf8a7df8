"""A web layer, and what it is wired to."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.kernel.web.fakes import AccessLog, EchoProxy, MemorySandboxes

from shoal.config.settings import Settings
from shoal.plugin.interfaces import Authenticator, Ingress, Policy, Resources
from shoal.web.app import build, own_resources
from shoal.web.edge import Edge
from shoal.web.entrance import Entrance
from shoal.web.policing import PolicyGuard
from shoal.web.strangers import Strangers
from shoal.web.table import RouteTable


@dataclass
class Web:
    """One web layer and what it was wired to."""

    sandboxes: MemorySandboxes = field(default_factory=MemorySandboxes)
    proxy: EchoProxy = field(default_factory=EchoProxy)
    access: AccessLog = field(default_factory=AccessLog)
    settings: Settings = field(default_factory=Settings)
    authenticators: list[Authenticator] = field(default_factory=list)
    ingresses: list[Ingress] = field(default_factory=list)
    strangers: Strangers | None = None
    policies: list[Policy] = field(default_factory=list)
    resources: list[Resources] = field(default_factory=list)
    reasons: dict[str, str | None] = field(default_factory=lambda: {"store": None})

    async def readiness(self) -> dict[str, str | None]:
        return self.reasons

    def table(self) -> RouteTable:
        own = own_resources(self.sandboxes, self.settings, self.readiness, "1.2.3")
        return RouteTable([*own, *self.resources])

    def app(self) -> Edge:
        table = self.table()
        entrance = Entrance(
            self.authenticators,
            self.ingresses,
            strangers=self.strangers,
            guard=PolicyGuard(self.policies, self.sandboxes) if self.policies else None,
            public=table.public,
        )
        return build(
            table,
            entrance,
            proxy=self.proxy,
            sockets=no_socket,
            access=self.access,
        )


async def no_socket(scope: object, target: object, socket: object, extra: object) -> int:
    """The tests of WebSockets are the proxy's (tests/kernel/proxy)."""
    raise AssertionError("no test here opens one")
