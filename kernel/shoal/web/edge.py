"""The outermost ASGI callable: what every request passes before a route sees it, and every failure on its way out.

In order: request id and clock, CORS, authentication, then the proxy for a sandbox's ports or Falcon for the rest. A
failure becomes JSON here and nowhere else; one access line follows each request.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from urllib.parse import quote_from_bytes

import structlog

from shoal.errors import NotSupported, ShoalError
from shoal.plugin.calls import bug, check_code, ends_this_task
from shoal.proxy.asgi import Message, Receive, Scope, Send
from shoal.proxy.failures import ResponseCut
from shoal.proxy.target import ProxyTarget
from shoal.web import cors, render
from shoal.web.entrance import Entrance
from shoal.web.exchange import KEY, Exchange
from shoal.web.forward import Forward
from shoal.web.http1.cycle import STREAMED
from shoal.web.http1.scope import REFUSED
from shoal.web.paths import note, proxy_target
from shoal.web.seam import Access, App, Proxy, SocketProxy
from shoal.web.websocket import WebSockets

log = structlog.get_logger("shoal.web")

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_NO_METHOD = "TRACE"
_URL_CHARACTERS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Edge:
    """An ASGI application around ``routes``.

    Args:
        routes: the Falcon application; raises ShoalErrors.
        entrance: who may come in.
        access: takes one entry per request.
        proxy, sockets: take what is for sandboxes' ports.
        lifespan: entered at start-up and left at shut-down of the ASGI server.
    """

    def __init__(
        self,
        routes: App,
        entrance: Entrance,
        *,
        proxy: Proxy,
        sockets: SocketProxy,
        access: Access,
        lifespan: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        self._routes = routes
        self._entrance = entrance
        self._proxy = proxy
        self._access = access
        self._websockets = WebSockets(entrance, sockets, access)
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websockets(scope, receive, send)
        elif kind == REFUSED:
            await self._refused(scope, receive, send)
        else:
            await self._live(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope[KEY] = Exchange(scope, receive, send)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            await self._serve(scope, receive, exchange)
        except ShoalError as error:
            if exchange.part is not None:
                check_code(exchange.part, error)
            await _fail(scope, exchange, error)
        except ResponseCut as cut:
            log.warning("answer cut off", sandbox_id=exchange.sandbox_id, cause=repr(cut.__cause__ or cut))
        except BaseException as error:
            if ends_this_task(error):
                raise
            if exchange.part is not None:
                await _fail(scope, exchange, bug(exchange.part, error))
                return
            log.exception("request failed in an unforeseen way", route=exchange.route, sandbox_id=exchange.sandbox_id)
            await _fail(scope, exchange, render.internal())
        finally:
            if exchange.admitted is not None:
                self._entrance.left(exchange)
            self._access(exchange.entry(scope))

    async def _refused(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the connection could not read as a request is answered and logged like any other failure."""
        exchange = Exchange(scope, receive, send)
        await _fail(scope, exchange, scope["error"])
        self._access(exchange.entry(scope))

    async def _serve(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        entrance = self._entrance
        claimed = entrance.hosts.claimed(exchange)
        if claimed is not None:
            scope[STREAMED] = True
            scope, onto = await entrance.admit_claimed(scope, exchange, claimed)
            await self._proxy(scope, receive, exchange.send, onto)
            return
        public = scope["path"] in entrance.public
        if entrance.strangers is not None and not public:
            entrance.strangers.refuse(exchange)
        target, refusal = proxy_target(scope)
        if scope["method"] == "OPTIONS" and cors.is_preflight("OPTIONS", exchange.headers):
            await self._preflight(scope, receive, exchange, target)
            return
        if refusal is not None:
            await entrance.authentication.admit(scope, exchange, "proxy")
            raise refusal
        if target is not None:
            await entrance.admit_proxied(scope, exchange, target)
            note(exchange, target)
            scope[STREAMED] = True
            await self._proxy(exchange.onward(scope), receive, exchange.send, target)
            return
        if not public:
            await entrance.authentication.admit(scope, exchange, "api")
        try:
            await self._routes(_routable(scope), receive, exchange.send)
        except Forward as onward:
            scope, receive = onward.scope(exchange.onward(scope)), onward.receive(receive)
            await self._proxy(scope, receive, exchange.send, onward.target, onward.headers)

    async def _preflight(self, scope: Scope, receive: Receive, exchange: Exchange, target: ProxyTarget | None) -> None:
        """A sandbox's service answers its own preflights; where it has no answer, or may not be asked, the server does.

        Browsers send preflights without credentials, so a guarded proxy path counts as "may not be asked".
        """
        if target is not None:
            note(exchange, target)
            attempt = _Attempt(exchange.send)
            try:
                await self._entrance.admit_proxied(scope, exchange, target)
                await self._proxy(exchange.onward(scope), receive, attempt.send, target)
            except (ShoalError, ResponseCut):
                if attempt.forwarded:
                    raise
            if attempt.forwarded:
                return
        await exchange.respond(200, cors.preflight_headers(exchange.headers), cors.PREFLIGHT_BODY)

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


async def _fail(scope: Scope, exchange: Exchange, error: ShoalError) -> None:
    """Answer with the error; if an answer has begun, leave it incomplete, so that the server cuts the connection."""
    if error.status >= 500 and not isinstance(error, NotSupported):
        log.warning("request refused", code=error.code, error=error.message, cause=repr(error.__cause__))
    if exchange.status == 0:
        content = render.body(error)
        status = render.status(error, scope["method"], scope["path"], exchange.header("user-agent"))
        await exchange.respond(status, render.headers(error, content), content)


def _routable(scope: Scope) -> Scope:
    """The scope in terms that Falcon takes: a query of ASCII, and for methods of no route one that no route has."""
    if scope["method"] not in _METHODS:
        scope = {**scope, "method": _NO_METHOD}
    if not scope["query_string"].isascii():
        scope = {**scope, "query_string": quote_from_bytes(scope["query_string"], safe=_URL_CHARACTERS).encode()}
    return scope
