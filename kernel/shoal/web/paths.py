"""Which paths are a sandbox's, and which are the control plane's."""

from __future__ import annotations

from urllib.parse import quote

from shoal.errors import ShoalError
from shoal.proxy.asgi import Scope
from shoal.proxy.target import ProxyTarget, parse_target
from shoal.web.exchange import Exchange

PROXY_ROUTE = "/sandboxes/{sandbox_id}/proxy/{port}"


def proxy_target(scope: Scope) -> tuple[ProxyTarget | None, ShoalError | None]:
    """The proxied port that the path names, or why it names none though it has the form."""
    path = raw_path(scope)
    if b"/proxy/" not in path:
        return None, None
    try:
        return parse_target(path), None
    except ShoalError as refusal:
        return None, refusal


def note(exchange: Exchange, target: ProxyTarget) -> None:
    """For the access log."""
    exchange.route, exchange.sandbox_id = target.mount.decode() + PROXY_ROUTE, target.sandbox_id


def raw_path(scope: Scope) -> bytes:
    """The path as it came, escapes and all."""
    return scope.get("raw_path") or quote(scope["path"]).encode()
