"""`build`: the whole web layer, wired by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from shoal.config.settings import Settings
from shoal.plugin.interfaces import Authenticator, Ingress
from shoal.web import routes
from shoal.web.edge import Edge
from shoal.web.seam import Access, Proxy, Readiness, Sandboxes, SocketProxy
from shoal.web.strangers import Strangers


def build(
    sandboxes: Sandboxes,
    *,
    settings: Settings,
    authenticators: Sequence[Authenticator],
    proxy: Proxy,
    sockets: SocketProxy,
    readiness: Readiness,
    access: Access,
    version: str,
    ingresses: Sequence[Ingress] = (),
    strangers: Strangers | None = None,
    lifespan: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> Edge:
    """The ASGI application.

    Args:
        sandboxes: the lifecycle.
        authenticators: who may come in, asked in this order; none leaves the server open.
        proxy, sockets: take the requests and the WebSockets for sandboxes' ports.
        readiness: asked by ``/ready``.
        access: takes one entry a request; must not block.
        version: answered by ``/version``.
        ingresses: of them, those that claim hosts are asked whose a request's host is.
        strangers: keeps other origins off, where there is no authenticator.
        lifespan: entered before the port answers, left after it stopped.
    """
    return Edge(
        routes.build(sandboxes, readiness, settings, version),
        authenticators=authenticators,
        proxy=proxy,
        sockets=sockets,
        access=access,
        ingresses=ingresses,
        strangers=strangers,
        lifespan=lifespan,
    )
