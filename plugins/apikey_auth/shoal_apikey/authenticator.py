"""The question of each request: whose key is in the header?"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Final

import structlog

from shoal.errors import Unauthenticated
from shoal.models import codes
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.plugin.interfaces.auth import PROXY
from shoal_apikey.config import ANONYMOUS_NAME, ProxyAccess
from shoal_apikey.digests import digest_of_header
from shoal_apikey.keyring import Keyring

log = structlog.get_logger("shoal.apikey")

HEADER: Final = "OPEN-SANDBOX-API-KEY"
SERVICE_HEADERS: Final = ("x-execd-access-token", "opensandbox-egress-auth")
"""Where the Go SDK sends the key to a sandbox's services. Anything else in them is the sandbox's own, and goes on."""
FOR_BROWSERS: Final = (
    "Browsers cannot send one: give them a signed preview host ([ingress.preview] and an endpoint with ?expires=), "
    "or let proxied requests in without a key ([apikey_auth] open_proxy = true)."
)
REFRESH_SECONDS: Final = 1.0

ANONYMOUS: Final = Principal(name=ANONYMOUS_NAME, scopes=frozenset({PROXY}))
"""Whoever comes through a proxy that is open."""

_PROXIED_PATH: Final = re.compile(r"(/v1)?/sandboxes/[^/]+/proxy/[0-9]+(/.*)?", re.DOTALL)
"""What opensandbox-server leaves open beside a single key (docs/wire/api.md section 4)."""


class ApiKeyAuthenticator(Authenticator):
    """Header ``OPEN-SANDBOX-API-KEY``, compared whole and case-sensitive (docs/wire/api.md section 4).

    Args:
        keyring: the keys in force; loaded by `start` and looked at again each second, on a thread.
        proxy: which proxied requests without a valid key are answered with `ANONYMOUS` instead of being refused.
    """

    name = "apikey"

    def __init__(self, keyring: Keyring, *, proxy: ProxyAccess = "key") -> None:
        self._keyring = keyring
        self._proxy = proxy
        self._watching: asyncio.Task[None] | None = None

    def check_config(self) -> None:
        """Read the keys, and warn if the proxy is open by default. Raises ConfigError (see `Keyring.load`)."""
        self._keyring.load()
        if self._proxy == "open-paths":
            log.warning(
                "with server.api_key alone, /sandboxes/{id}/proxy/{port} needs no key, as in opensandbox-server: "
                "whoever knows a sandbox's id reaches its ports; [apikey_auth] open_proxy = false asks for the key"
            )

    async def start(self) -> None:
        """Read the keys. Raises ConfigError (see `Keyring.load`)."""
        await asyncio.to_thread(self._keyring.load)
        if self._keyring.changes:
            self._watching = asyncio.create_task(self._watch(), name="shoal-apikey-watch")

    async def stop(self) -> None:
        """Stop looking at the files."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        """The key's principal; None without a key. Raises Unauthenticated for a key that is not known."""
        key = request.header(HEADER.lower())
        known = self._find(request, key)
        if request.kind == "proxy":
            elsewhere = [self._find(request, request.shared_header(name)) for name in SERVICE_HEADERS]
            if not key:
                known = elsewhere[0] or elsewhere[1]
        if self._opens(request):
            return known if known is not None and PROXY in known.scopes else ANONYMOUS
        if key and known is None:
            raise Unauthenticated(codes.INVALID_API_KEY, f"The key in {HEADER} is not known.")
        return known

    def security_schemes(self) -> dict[str, dict[str, str]]:
        """The header, as the document names it."""
        described = "An API key, as the server's configuration has it."
        return {"apiKey": {"type": "apiKey", "in": "header", "name": HEADER, "description": described}}

    def _find(self, request: AuthRequest, key: str | None) -> Principal | None:
        """Whose key it is; a key that is known does not go on to the sandbox, whatever header it came in."""
        known = self._keyring.find(digest_of_header(key)) if key else None
        if key and known is not None:
            request.withhold(key)
        return known

    def _opens(self, request: AuthRequest) -> bool:
        if request.kind != "proxy" or self._proxy == "key":
            return False
        by_path = _PROXIED_PATH.fullmatch(request.path) is not None and ".." not in request.path
        return self._proxy == "open" or by_path

    def missing(self) -> Unauthenticated:
        """The error for a request without a key."""
        return Unauthenticated(codes.MISSING_API_KEY, f"The request needs a key in the header {HEADER}.")

    def missing_for_proxy(self) -> Unauthenticated:
        """The same, with the ways in for browsers, which cannot send the header."""
        return Unauthenticated(codes.MISSING_API_KEY, f"{self.missing().message} {FOR_BROWSERS}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self._keyring.refresh)
            except Exception:  # a bug there must not end the watch
                log.exception("looking at the key files failed")
