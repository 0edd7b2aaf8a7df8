"""Registry credentials: the request's own, or those of the server's own user (docs/wire/docker.md section 6).

The latter are read anew each time, since somebody may have logged in meanwhile; a credential helper may take a while,
so they are read on a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Final

import structlog
from docker.auth import encode_header, load_config
from docker.errors import DockerException

from shoal.models.requests import ImageAuth

log = structlog.get_logger("shoal.docker")

NOBODY: Final = ""
"""Who gives no credentials: the server's own count, if it has any."""


class RegistryCredentials:
    """Names credentials without keeping them, and puts them as the engine takes them."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def who(self, auth: ImageAuth | None) -> str:
        """The same text for the same credentials, in this process alone; they cannot be derived from it."""
        if auth is None:
            return NOBODY
        given = f"{auth.username}\0{auth.password.reveal()}".encode()
        return hashlib.blake2b(given, key=self._salt, digest_size=16).hexdigest()

    async def for_registry(self, registry: str, auth: ImageAuth | None) -> dict[str, str]:
        """What goes into X-Registry-Auth; empty for none."""
        if auth is not None:
            return {"username": auth.username, "password": auth.password.reveal(), "serveraddress": registry}
        return await asyncio.to_thread(_own, registry)

    async def header(self, registry: str, auth: ImageAuth | None) -> dict[str, str]:
        """The request header for a pull."""
        encoded = encode_header(await self.for_registry(registry, auth))
        return {"X-Registry-Auth": encoded.decode() if isinstance(encoded, bytes) else encoded}


def _own(registry: str) -> dict[str, str]:
    """The server user's own. Blocks. None, with a line in the log, if they cannot be read."""
    try:
        found = load_config().resolve_authconfig(registry)
    except (DockerException, OSError, ValueError) as error:
        log.warning("the server's own registry credentials cannot be read", registry=registry, error=str(error))
        return {}
    return dict(found or {})
