"""`build`: the whole web layer, wired by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from shoal.config.settings import Settings
from shoal.plugin.components import Components
from shoal.plugin.interfaces import Resources
from shoal.web import routes
from shoal.web.edge import Edge
from shoal.web.entrance import Entrance
from shoal.web.resources.diagnostics import DiagnosticsRoutes
from shoal.web.resources.endpoints import EndpointRoutes
from shoal.web.resources.lifecycle import ChangeRoutes
from shoal.web.resources.metrics import MetricsRoutes
from shoal.web.resources.network_policy import NetworkPolicyRoutes
from shoal.web.resources.pools import PoolRoutes
from shoal.web.resources.sandboxes import SandboxRoutes
from shoal.web.resources.server import ServerRoutes
from shoal.web.resources.snapshots import SnapshotRoutes
from shoal.web.resources.templates import TemplateRoutes
from shoal.web.schemes import schemes_of
from shoal.web.seam import Access, LifecycleApi, Proxy, Readiness, SocketProxy
from shoal.web.table import RouteTable


def own_resources(lifecycle: LifecycleApi, settings: Settings, readiness: Readiness, version: str) -> list[Resources]:
    """The groups of routes that every server has, in the order of the document."""
    return [
        SandboxRoutes(lifecycle.sandboxes, lifecycle.snapshots, settings),
        ChangeRoutes(lifecycle.sandboxes, settings),
        EndpointRoutes(lifecycle.sandboxes, lifecycle.reach, settings),
        NetworkPolicyRoutes(lifecycle.reach, settings),
        DiagnosticsRoutes(lifecycle.sandboxes, lifecycle.diagnostics),
        SnapshotRoutes(lifecycle.snapshots, settings),
        PoolRoutes(lifecycle.pools, settings),
        TemplateRoutes(settings),
        MetricsRoutes(settings),
        ServerRoutes(readiness, version),
    ]


def check_routes(lifecycle: LifecycleApi, settings: Settings, components: Components) -> None:
    """Raise ConfigError for a route or a security scheme of a plugin that cannot stand beside the others."""

    async def nobody() -> dict[str, str | None]:
        return {}

    own = own_resources(lifecycle, settings, nobody, "")
    credentials = schemes_of(components.authenticators, components.plugins)
    routes.build(RouteTable([*own, *components.resources], components.plugins), credentials=credentials)


def build(
    table: RouteTable,
    entrance: Entrance,
    *,
    proxy: Proxy,
    sockets: SocketProxy,
    access: Access,
    lifespan: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> Edge:
    """The ASGI application.

    Args:
        table: every route, the server's own (`own_resources`) and the plugins'.
        entrance: who may come in.
        proxy, sockets: take the requests and the WebSockets for sandboxes' ports.
        access: takes one entry per request; must not block.
        lifespan: entered before the port answers, left after it stopped.

    Raises ConfigError for a route that cannot be served, and for a security scheme that is none.
    """
    app = routes.build(table, entrance.guard, entrance.credentials)
    return Edge(app, entrance, proxy=proxy, sockets=sockets, access=access, lifespan=lifespan)
