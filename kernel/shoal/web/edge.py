"""The outermost ASGI callable: what every request passes before a route sees it, and every failure on its way out.

In order: request id and clock, CORS, authentication, then the proxy for a sandbox's ports or Falcon for the rest. A
failure becomes JSON here and nowhere else; one access line follows each request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from urllib.parse import quote, quote_from_bytes

import structlog

from shoal.errors import NotSupported, ShoalError
from shoal.plugin.interfaces import Authenticator, HostTarget, Ingress
from shoal.proxy.asgi import Message, Receive, Scope, Send
from shoal.proxy.failures import ResponseCut
from shoal.proxy.target import ProxyTarget, host_target, parse_target
from shoal.web import cors, render
from shoal.web.authentication import PUBLIC_PATHS, Authentication
from shoal.web.exchange import KEY, Exchange
from shoal.web.forward import Forward
from shoal.web.seam import Access, App, Proxy

log = structlog.get_logger("shoal.web")

PROXY_ROUTE = "/sandboxes/{sandbox_id}/proxy/{port}"
HOST_ROUTE = "{host}"
"""In the access log, of requests whose host stands for a port of a sandbox."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_NO_METHOD = "TRACE"
_URL_CHARACTERS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Edge:
    """An ASGI application around ``routes``.

    Args:
        routes: the Falcon application; raises ShoalErrors.
        authenticators: asked in this order.
        access: takes one entry a request.
        ingresses: those that claim hosts are asked, in this order, whose a request's host is.
        lifespan: entered at start-up and left at shut-down of the ASGI server.
    """

    def __init__(
        self,
        routes: App,
        *,
        authenticators: Sequence[Authenticator],
        proxy: Proxy,
        access: Access,
        ingresses: Sequence[Ingress] = (),
        lifespan: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        self._routes = routes
        self._authentication = Authentication(authenticators)
        self._proxy = proxy
        self._access = access
        self._claims = [ingress.claim for ingress in ingresses if ingress.claims]
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._live(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope[KEY] = Exchange(scope, receive, send)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            await self._serve(scope, receive, exchange)
        except ShoalError as error:
            await _fail(exchange, error)
        except ResponseCut as cut:
            log.warning("answer cut off", sandbox_id=exchange.sandbox_id, cause=repr(cut.__cause__ or cut))
        except Exception:
            log.exception("request failed in an unforeseen way", route=exchange.route, sandbox_id=exchange.sandbox_id)
            await _fail(exchange, render.internal())
        finally:
            self._access(exchange.entry(scope))

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        claimed = self._claimed(exchange) if self._claims else None
        if claimed is not None:
            await self._serve_host(scope, receive, exchange, claimed)
            return
        target, refusal = _target(scope)
        proxied = target is not None or refusal is not None
        if scope["method"] == "OPTIONS" and cors.is_preflight("OPTIONS", exchange.headers):
            await self._preflight(scope, receive, exchange, target)
            return
        if proxied or scope["path"] not in PUBLIC_PATHS:
            await self._authentication.admit(scope, exchange, "proxy" if proxied else "api")
        if refusal is not None:
            raise refusal
        if target is not None:
            exchange.route, exchange.sandbox_id = target.mount.decode() + PROXY_ROUTE, target.sandbox_id
            await self._proxy(scope, receive, exchange.send, target)
            return
        try:
            await self._routes(_routable(scope), receive, exchange.send)
        except Forward as onward:
            scope, receive = onward.scope(scope), onward.receive(receive)
            await self._proxy(scope, receive, exchange.send, onward.target, onward.headers)

    def _claimed(self, exchange: Exchange) -> HostTarget | None:
        """The port that the Host header stands for. Raises Unauthenticated for a host that is signed wrongly."""
        host = exchange.header("host")
        if host is None:
            return None
        return next((target for claim in self._claims if (target := claim(host)) is not None), None)

    async def _serve_host(self, scope: Scope, receive: Receive, exchange: Exchange, claimed: HostTarget) -> None:
        exchange.route, exchange.sandbox_id = HOST_ROUTE, claimed.sandbox_id
        exchange.leave_cors_alone()
        scope, target = await self._admit_to_host(scope, exchange, claimed)
        await self._proxy(scope, receive, exchange.send, target)

    async def _admit_to_host(self, scope: Scope, exchange: Exchange, claimed: HostTarget) -> tuple[Scope, ProxyTarget]:
        """Ask who comes, unless the host is open to all or is itself the proof.

        Returns the request as the sandbox may see it: without what an authenticator looked at, which is the control
        plane's, whatever else of its name belongs to the sandbox.
        """
        target = host_target(claimed, _raw_path(scope))
        if not (claimed.open or claimed.signed):
            await self._authentication.admit(scope, exchange, "proxy")
            headers = [header for header in scope["headers"] if header[0] not in exchange.consulted]
            scope = {**scope, "headers": headers}
        return scope, target

    async def _preflight(self, scope: Scope, receive: Receive, exchange: Exchange, target: ProxyTarget | None) -> None:
        """A sandbox's service answers its own preflights; where it has no answer, or may not be asked, the server does.

        Browsers send preflights without credentials, so a guarded proxy path counts as "may not be asked".
        """
        if target is not None:
            exchange.route, exchange.sandbox_id = target.mount.decode() + PROXY_ROUTE, target.sandbox_id
            attempt = _Attempt(exchange.send)
            try:
                await self._authentication.admit(scope, exchange, "proxy")
                await self._proxy(scope, receive, attempt.send, target)
            except (ShoalError, ResponseCut):
                if attempt.forwarded:
                    raise
            if attempt.forwarded:
                return
        await exchange.respond(200, cors.preflight_headers(exchange.headers), cors.PREFLIGHT_BODY)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the handshake, which the client sees as HTTP 403; the WebSocket proxy will take this place."""
        exchange = Exchange(scope, receive, send)
        exchange.status = 403
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "WebSocket is not supported"})
        self._access(exchange.entry(scope))

    async def _live(self, receive: Receive, send: Send) -> None:
        phase = "startup"
        await receive()
        try:
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception as error:
            log.exception("server failed", phase=phase)
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


class _Attempt:
    """Passes on an answer that speaks CORS, and swallows any other."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.forwarded = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.forwarded = any(name == cors.ALLOW_ORIGIN for name, _ in message["headers"])
        if self.forwarded:
            await self._send(message)


async def _fail(exchange: Exchange, error: ShoalError) -> None:
    """Answer with the error; if an answer has begun, leave it incomplete, so that the server cuts the connection."""
    if error.status >= 500 and not isinstance(error, NotSupported):
        log.warning("request refused", code=error.code, error=error.message, cause=repr(error.__cause__))
    if exchange.status == 0:
        content = render.body(error)
        await exchange.respond(error.status, render.headers(error, content), content)


def _target(scope: Scope) -> tuple[ProxyTarget | None, ShoalError | None]:
    """The proxied port that the path names, or why it names none though it has the form."""
    raw_path = _raw_path(scope)
    if b"/proxy/" not in raw_path:
        return None, None
    try:
        return parse_target(raw_path), None
    except ShoalError as refusal:
        return None, refusal


def _raw_path(scope: Scope) -> bytes:
    return scope.get("raw_path") or quote(scope["path"]).encode()


def _routable(scope: Scope) -> Scope:
    """The scope in terms that Falcon takes: a query of ASCII, and for methods of no route one that no route has."""
    if scope["method"] not in _METHODS:
        scope = {**scope, "method": _NO_METHOD}
    if not scope["query_string"].isascii():
        scope = {**scope, "query_string": quote_from_bytes(scope["query_string"], safe=_URL_CHARACTERS).encode()}
    return scope
