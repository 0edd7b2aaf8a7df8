"""The Falcon application: which path goes to which resource.

Falcon routes and nothing more: its own errors become ShoalErrors here, and all errors leave it for the edge to render.
"""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import quote

import falcon
import structlog
from falcon.asgi import App, Request, Response
from falcon.routing import CompiledRouter

from shoal.errors import ConfigError, InvalidRequest
from shoal.models import codes
from shoal.web import openapi, render
from shoal.web.authentication import require_scope
from shoal.web.exchange import KEY, Exchange
from shoal.web.policing import PolicyGuard
from shoal.web.resources.pages import pages
from shoal.web.resources.server import Static
from shoal.web.schemes import OPEN, Schemes
from shoal.web.table import DOCUMENT, RouteTable


def build(table: RouteTable, guard: PolicyGuard | None = None, credentials: Schemes = OPEN) -> App[Request, Response]:
    """The application with every route of the table, and the document about them and what they ask of callers.

    Raises ConfigError.
    """
    router = CompiledRouter()
    asks = [] if guard is None else [_Asks(table, guard)]
    app: App[Request, Response] = App(router=router, middleware=[_Notes(table), *asks, _Hands(table)])
    app.resp_options.default_media_type = None  # type: ignore[assignment]  # an empty answer has no type
    app.add_error_handler(Exception, _leave)
    app.add_error_handler(falcon.HTTPError, _Translation(router, table).leave)
    for path, route in table.mounted.items():
        try:
            app.add_route(path, route.resource)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the route {path!r} cannot be served: {error}") from error
    app.add_route(DOCUMENT, Static(openapi.document(table.rows, credentials)))
    for path, page in pages().items():
        app.add_route(path, page)
    return app


class _Notes:
    """Notes what was routed to: for the access line, and where something may change, for the log lines on the way.

    Then asks whether the caller's credential holds what the operation needs.
    """

    def __init__(self, table: RouteTable) -> None:
        self._table = table

    async def process_resource(self, req: Request, _resp: Response, _resource: object, params: dict[str, Any]) -> None:
        if "" in params.values():
            # Falcon takes the nothing after a trailing slash for a value.
            raise falcon.HTTPRouteNotFound
        exchange: Exchange = req.scope[KEY]
        exchange.route = req.uri_template
        sandbox_id = exchange.sandbox_id = params.get("sandbox_id")
        if sandbox_id is not None and req.method != "GET":
            structlog.contextvars.bind_contextvars(sandbox_id=sandbox_id)
        if exchange.principal is not None:
            require_scope(exchange.principal, self._table.scope(req.uri_template, exchange.method))


class _Asks:
    """Asks the policies about what was routed to, unless everybody may have it."""

    def __init__(self, table: RouteTable, guard: PolicyGuard) -> None:
        self._table = table
        self._guard = guard

    async def process_resource(self, req: Request, _resp: Response, _resource: object, params: dict[str, Any]) -> None:
        if req.path in self._table.public:
            return
        template = req.uri_template or ""
        exchange: Exchange = req.scope[KEY]
        operation = self._table.operation(template, exchange.method)
        await self._guard.routed(exchange, req.scope, template, operation, params)

    async def process_response(self, req: Request, _resp: Response, _resource: object, succeeded: bool) -> None:
        exchange: Exchange = req.scope[KEY]
        if succeeded and exchange.ask is not None:
            raise RuntimeError(f"{exchange.method} {req.uri_template} has not asked the policies, as it declares")


class _Hands:
    """Notes whose responder has the request from now on, for what it raises."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table

    async def process_resource(self, req: Request, _resp: Response, _resource: object, _params: dict[str, Any]) -> None:
        exchange: Exchange = req.scope[KEY]
        exchange.part = self._table.part(req.uri_template)


class _Translation:
    """Falcon's own errors in the kernel's terms; a path with a trailing slash is sent to the one without."""

    def __init__(self, router: CompiledRouter, table: RouteTable) -> None:
        self._router = router
        self._table = table

    async def leave(self, req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
        exchange: Exchange = req.scope[KEY]
        if exchange.principal is not None:  # what is here, and what is not, is for those to know who may ask
            require_scope(exchange.principal, self._table.scope(None, exchange.method))
        if isinstance(error, falcon.HTTPNotFound):
            shorter = req.path.rstrip("/")
            if shorter == req.path or self._router.find(shorter) is None:
                raise render.unknown_route()
            resp.status = 307
            resp.set_header("Location", _absolute(req))
        elif isinstance(error, falcon.HTTPMethodNotAllowed):
            allow: str = dict(error.headers or {})["Allow"]
            # Falcon answers OPTIONS on every route unasked; the API does not.
            raise render.wrong_method([method for method in allow.split(", ") if method != "OPTIONS"])
        else:
            raise InvalidRequest(codes.UNKNOWN_ERROR, error.title or "The request is invalid.")


async def _leave(_req: Request, _resp: Response, error: Exception, _params: dict[str, Any]) -> NoReturn:
    raise error


def _absolute(req: Request) -> str:
    """The request's own URL without trailing slashes."""
    path = quote(req.scope.get("raw_path", b"").rstrip(b"/") or req.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    query = f"?{req.query_string}" if req.query_string else ""
    return f"{req.scheme}://{req.netloc}{path}{query}"
