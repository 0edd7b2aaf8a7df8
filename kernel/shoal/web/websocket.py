"""WebSockets at the edge: who may open one, and how a refusal reaches the client (docs/wire/api.md section 16)."""

from __future__ import annotations

import structlog

from shoal.errors import Forbidden, InvalidRequest, RateLimited, ShoalError, Unauthenticated
from shoal.models import codes
from shoal.plugin.calls import ends_this_task
from shoal.proxy.asgi import Receive, Scope, Send
from shoal.proxy.target import ProxyTarget
from shoal.proxy.websocket import SOCKET, ClientSocket, UpstreamRefused
from shoal.proxy.websocket.frames import ABNORMAL, INTERNAL_ERROR, POLICY_VIOLATION, TRY_AGAIN_LATER
from shoal.web import render
from shoal.web.entrance import Entrance
from shoal.web.exchange import Exchange
from shoal.web.paths import note, proxy_target
from shoal.web.seam import Access, SocketProxy

log = structlog.get_logger("shoal.web")

_REASONS = {codes.MISSING_API_KEY: "missing API key", codes.INVALID_API_KEY: "invalid API key"}


class WebSockets:
    """Takes WebSockets to sandboxes' ports, by path or by host; every other is answered 403.

    Another ASGI server than ours has no `ClientSocket` to offer: there, too, every WebSocket is answered 403.
    """

    def __init__(
        self,
        entrance: Entrance,
        proxy: SocketProxy,
        access: Access,
    ) -> None:
        self._entrance = entrance
        self._proxy = proxy
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one, to its end."""
        exchange = Exchange(scope, receive, send)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        socket: ClientSocket | None = (scope.get("extensions") or {}).get(SOCKET)
        try:
            admitted = None if socket is None else await self._admit(scope, exchange)
            if socket is None or admitted is None:
                exchange.status = 403
                await receive()
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
                return
            exchange.status = 101
            exchange.close_code = await self._proxy(*admitted, socket, exchange.identity())
            exchange.complete = exchange.close_code != ABNORMAL
        except ShoalError as error:
            self._refuse(socket, exchange, error)
        except BaseException as error:
            if ends_this_task(error):
                exchange.status = exchange.status if socket is not None and socket.accepted else 0
                raise
            log.exception("WebSocket failed in an unforeseen way", route=exchange.route, sandbox_id=exchange.sandbox_id)
            self._refuse(socket, exchange, render.internal())
        finally:
            self._entrance.left(exchange)
            self._access(exchange.entry(scope))

    async def _admit(self, scope: Scope, exchange: Exchange) -> tuple[Scope, ProxyTarget] | None:
        """The request as the sandbox may see it, and where it goes; None if no WebSocket is to be had there."""
        claimed = self._entrance.hosts.claimed(exchange)
        if claimed is not None:
            return await self._entrance.admit_claimed(scope, exchange, claimed)
        target, _ = proxy_target(scope)
        if target is None:
            return None
        if self._entrance.strangers is not None:
            self._entrance.strangers.refuse(exchange)
        note(exchange, target)
        await self._entrance.admit_proxied(scope, exchange, target)
        return exchange.onward(scope), target

    def _refuse(self, socket: ClientSocket | None, exchange: Exchange, error: ShoalError) -> None:
        """Tell the client by a close frame; a socket that is relayed has had its own."""
        exchange.status = error.status
        if socket is None or socket.accepted:
            return
        exchange.close_code, reason = _close(error)
        if exchange.close_code == INTERNAL_ERROR:
            log.info("WebSocket refused", code=error.code, error=error.message, cause=repr(error.__cause__))
        socket.close(exchange.close_code, reason)


def _close(error: ShoalError) -> tuple[int, str]:
    """Code and reason for what keeps a WebSocket from being opened."""
    if isinstance(error, UpstreamRefused):
        return POLICY_VIOLATION, ""
    if isinstance(error, (Unauthenticated, Forbidden, InvalidRequest)):
        return POLICY_VIOLATION, _REASONS.get(error.code, error.message)
    if isinstance(error, RateLimited):
        return TRY_AGAIN_LATER, error.message
    return INTERNAL_ERROR, error.message
