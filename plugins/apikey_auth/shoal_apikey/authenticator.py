"""The question of each request: whose key is in the header?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from shoal.errors import Unauthenticated
from shoal.models import codes
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.plugin.interfaces.auth import PROXY
from shoal_apikey.config import ANONYMOUS_NAME
from shoal_apikey.digests import digest_of_header
from shoal_apikey.keyring import Keyring

log = structlog.get_logger("shoal.apikey")

HEADER: Final = "OPEN-SANDBOX-API-KEY"
REFRESH_SECONDS: Final = 1.0

ANONYMOUS: Final = Principal(name=ANONYMOUS_NAME, scopes=frozenset({PROXY}))
"""Whoever comes through a proxy that is open."""


class ApiKeyAuthenticator(Authenticator):
    """Header ``OPEN-SANDBOX-API-KEY``, compared whole and case-sensitive (contract/api.md section 4).

    Args:
        keyring: the keys in force; loaded by `start` and looked at again each second, on a thread.
        open_proxy: answer `ANONYMOUS` for proxied requests without a valid key instead of refusing them.
    """

    name = "apikey"

    def __init__(self, keyring: Keyring, *, open_proxy: bool = False) -> None:
        self._keyring = keyring
        self._open_proxy = open_proxy
        self._watching: asyncio.Task[None] | None = None

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
        known = self._keyring.find(digest_of_header(key)) if key else None
        if self._open_proxy and request.kind == "proxy":
            return known if known is not None and PROXY in known.scopes else ANONYMOUS
        if key and known is None:
            raise Unauthenticated(codes.INVALID_API_KEY, f"The key in {HEADER} is not known.")
        return known

    def missing(self) -> Unauthenticated:
        """The error for a request without a key."""
        return Unauthenticated(codes.MISSING_API_KEY, f"The request needs a key in the header {HEADER}.")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self._keyring.refresh)
            except Exception:  # a bug there must not end the watch
                log.exception("looking at the key files failed")
