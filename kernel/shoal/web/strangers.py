"""Keeps other people's web pages off a server that asks for no key.

Any page that a browser of this machine shows may send requests to a loopback address, and a name of its own may lead
there (DNS rebinding). Without a key, only the browser's headers distinguish such a request from the user's own.
"""

from __future__ import annotations

from collections.abc import Collection

from shoal.config.settings import ServerSettings
from shoal.errors import Forbidden
from shoal.models import codes
from shoal.web.exchange import Exchange
from shoal.web.guard import is_loopback

_SITES_OF_OTHERS = (b"cross-site", b"same-site")
_USUAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of loopback that most requests have: recognised without parsing an address."""


class Strangers:
    """Refuses requests of pages from another origin, and on loopback those for names that are not this machine's.

    Args:
        loopback_only: the server listens on loopback; on another address its names are not known here.
        names: further hosts by which clients reach it, without a port.
    """

    def __init__(self, *, loopback_only: bool, names: Collection[str] = ()) -> None:
        self._loopback_only = loopback_only
        self._names = frozenset(name.lower() for name in names)

    @classmethod
    def of(cls, server: ServerSettings) -> Strangers:
        """For a server with these settings and no key."""
        eip = (server.eip or "").strip().partition("://")[2] or (server.eip or "").strip()
        names = [_name(eip.partition("/")[0])] if eip else []
        return cls(loopback_only=is_loopback(server.host), names=names)

    def refuse(self, exchange: Exchange) -> None:
        """Return if the request may go on. Raises Forbidden, after which no origin may read the answer."""
        host = exchange.headers.get(b"host", b"").decode("latin-1").lower()
        if host and self._loopback_only and not self._is_ours(_name(host)):
            exchange.leave_cors_alone()
            raise Forbidden(
                codes.FOREIGN_HOST,
                "This server has no key, so it answers only to loopback names and to server.eip. Configure a key to be "
                "reached by other names.",
            )
        if self._is_foreign(exchange, host):
            exchange.leave_cors_alone()
            raise Forbidden(
                codes.FOREIGN_ORIGIN,
                "This server has no key, so web pages of other origins may not use it. Configure a key to let them.",
            )

    def _is_ours(self, name: str) -> bool:
        return name in _USUAL or is_loopback(name) or name.endswith(".localhost") or name in self._names

    def _is_foreign(self, exchange: Exchange, host: str) -> bool:
        headers = exchange.headers
        origin = headers.get(b"origin")
        if origin is not None:
            return origin.decode("latin-1").lower().partition("://")[2] != host
        # Images, scripts and the like of other sites come without an Origin. A link is for whoever follows it.
        return headers.get(b"sec-fetch-site") in _SITES_OF_OTHERS and headers.get(b"sec-fetch-mode") != b"navigate"


def _name(host: str) -> str:
    """``host`` without its port; an IPv6 address keeps its brackets."""
    head, colon, port = host.rpartition(":")
    return head if colon and port.isdigit() and not head.endswith(":") else host
