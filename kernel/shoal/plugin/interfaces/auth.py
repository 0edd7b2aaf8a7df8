"""Authentication: who is asking.

The kernel asks every authenticator in turn, for HTTP and WebSocket alike. The first principal wins; the first exception
ends the request. With no authenticator at all, everybody is allowed everything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct

from shoal.errors import Unauthenticated
from shoal.plugin.interfaces.component import Component

READ, WRITE, PROXY = "read", "write", "proxy"
ALL_SCOPES: frozenset[str] = frozenset({READ, WRITE, PROXY})


class Principal(Struct, kw_only=True, frozen=True):
    """An authenticated caller.

    Attributes:
        name: for logs and ownership; never a credential. It is what `SandboxRecord.owner` will be, so the same caller
            has the same one at all times.
        scopes: ``read`` (GET), ``write`` (everything else), ``proxy`` (proxied requests and WebSockets). All three
            unless given.
    """

    name: str
    scopes: frozenset[str] = ALL_SCOPES


def _no_header(_name: str) -> None:
    return None


def _withhold_nothing(_value: str) -> None:
    return None


class AuthRequest(Struct, frozen=True):
    """What an authenticator may look at.

    Attributes:
        kind: ``api`` for the control plane's own routes, ``proxy`` for requests that go on to a sandbox.
        transport: ``http`` or ``websocket``.
        method, path: as received; ``path`` is decoded and without query.
        header: ``header("open-sandbox-api-key")``: the value of a header by its lower-case name, or None. A header that
            was asked for is the control plane's: a proxied request goes on without it.
        shared_header: the same for a header in which a sandbox's service may want a credential of its own; it goes on.
        withhold: called with the value of a credential that is known here, so that no header that holds it goes on.
    """

    kind: Literal["api", "proxy"]
    transport: Literal["http", "websocket"]
    method: str
    path: str
    header: Callable[[str], str | None]
    shared_header: Callable[[str], str | None] = _no_header
    withhold: Callable[[str], None] = _withhold_nothing


class Authenticator(Component, ABC):
    """One kind of credential."""

    @abstractmethod
    async def authenticate(self, request: AuthRequest) -> Principal | None:
        """The caller; None for "not my kind of credential" (the next one is asked).

        Called for every request, before its route is known, on the event loop and without a time limit: what asks
        another service bounds that itself. Raises Unauthenticated for "mine, and bad", as for a token that has expired,
        Unavailable if it cannot decide now. ``Unauthenticated(code, message, headers={"WWW-Authenticate": "Bearer"})``
        answers with these headers.
        """

    def security_schemes(self) -> Mapping[str, Mapping[str, Any]]:
        """What `/openapi.json` says of this kind of credential; an empty dict says nothing.

        By name, the Security Scheme Objects of OpenAPI 3.1, such as
        ``{"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}``. A request needs one of all that the
        enabled authenticators name. Called once, before `start`. Two authenticators may name the same scheme.
        """
        return {}

    def missing(self) -> Unauthenticated:
        """The error for a request that carries no credential of any kind; the first authenticator's is used."""
        return Unauthenticated("MISSING_CREDENTIALS", "This server needs a credential and the request carries none.")

    def missing_for_proxy(self) -> Unauthenticated:
        """The same for a proxied request, which may come from a browser that cannot send the credential."""
        return self.missing()
