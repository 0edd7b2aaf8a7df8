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

from shoal.config.settings import Settings
from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.web import openapi, render
from shoal.web.exchange import KEY
from shoal.web.resources.diagnostics import Events, Inspect, Logs, Summary
from shoal.web.resources.endpoints import EndpointLookup
from shoal.web.resources.lifecycle import Pause, Renewal, Resume
from shoal.web.resources.metrics import MetricsEvents
from shoal.web.resources.network_policy import NetworkPolicyItem
from shoal.web.resources.pages import pages
from shoal.web.resources.pools import PoolCollection, PoolItem
from shoal.web.resources.sandboxes import SandboxCollection, SandboxItem, SandboxMetadata
from shoal.web.resources.server import Ready, Static
from shoal.web.resources.snapshots import SandboxSnapshots, SnapshotCollection, SnapshotItem
from shoal.web.resources.templates import TemplateCollection, TemplateItem
from shoal.web.seam import Readiness, Sandboxes

MOUNTS = ("", "/v1")


def build(sandboxes: Sandboxes, readiness: Readiness, settings: Settings, version: str) -> App[Request, Response]:
    """The application with every route of `openapi`."""
    router = CompiledRouter()
    app: App[Request, Response] = App(router=router, middleware=[_Notes()])
    app.resp_options.default_media_type = None  # type: ignore[assignment]  # an empty answer has no type
    app.add_error_handler(Exception, _leave)
    app.add_error_handler(falcon.HTTPError, _Translation(router).leave)
    for path, resource in _mounted(sandboxes, settings).items():
        for mount in MOUNTS:
            app.add_route(mount + path, resource)
    app.add_route("/health", Static({"status": "healthy"}))
    app.add_route("/version", Static({"version": version}))
    app.add_route("/ready", Ready(readiness))
    app.add_route("/openapi.json", Static(openapi.document()))
    for path, page in pages().items():
        app.add_route(path, page)
    return app


def _mounted(sandboxes: Sandboxes, settings: Settings) -> dict[str, object]:
    item = "/sandboxes/{sandbox_id}"
    return {
        "/sandboxes": SandboxCollection(sandboxes, settings),
        item: SandboxItem(sandboxes, settings),
        f"{item}/metadata": SandboxMetadata(sandboxes, settings),
        f"{item}/pause": Pause(sandboxes),
        f"{item}/resume": Resume(sandboxes),
        f"{item}/renew-expiration": Renewal(sandboxes, settings),
        f"{item}/endpoints/{{port}}": EndpointLookup(sandboxes, settings),
        f"{item}/networkpolicy": NetworkPolicyItem(sandboxes, settings),
        f"{item}/diagnostics/logs": Logs(sandboxes),
        f"{item}/diagnostics/events": Events(sandboxes),
        f"{item}/diagnostics/inspect": Inspect(sandboxes),
        f"{item}/diagnostics/summary": Summary(sandboxes),
        f"{item}/snapshots": SandboxSnapshots(sandboxes, settings),
        "/metrics/events": MetricsEvents(settings),
        "/snapshots": SnapshotCollection(sandboxes),
        "/snapshots/{snapshot_id}": SnapshotItem(sandboxes),
        "/templates": TemplateCollection(settings),
        "/templates/{template_id}": TemplateItem(),
        "/pools": PoolCollection(sandboxes, settings),
        "/pools/{name}": PoolItem(sandboxes, settings),
    }


class _Notes:
    """Notes what was routed to: for the access line, and where something may change, for the log lines on the way."""

    async def process_resource(self, req: Request, _resp: Response, _resource: object, params: dict[str, Any]) -> None:
        if "" in params.values():
            # Falcon takes the nothing after a trailing slash for a value.
            raise falcon.HTTPRouteNotFound
        exchange = req.scope[KEY]
        exchange.route = req.uri_template
        exchange.sandbox_id = sandbox_id = params.get("sandbox_id")
        if sandbox_id is not None and req.method != "GET":
            structlog.contextvars.bind_contextvars(sandbox_id=sandbox_id)


class _Translation:
    """Falcon's own errors in the kernel's terms; a path with a trailing slash is sent to the one without."""

    def __init__(self, router: CompiledRouter) -> None:
        self._router = router

    async def leave(self, req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
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
