"""Whose port a host is, and the endpoints that clients get."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from shoal.errors import InvalidRequest, Unauthenticated
from shoal.models import codes
from shoal.plugin.interfaces import Endpoint, EndpointQuery, HostTarget, Ingress
from shoal_preview import hosts, keyfile
from shoal_preview.config import PreviewSettings
from shoal_preview.hosts import PreviewTarget
from shoal_preview.links import LATEST, Signer

INVALID_LINK = "PREVIEW::INVALID_LINK"
EXPIRED_LINK = "PREVIEW::LINK_EXPIRED"


class PreviewIngress(Ingress):
    """Preview hosts below one domain.

    Args:
        default_key: where the key is kept that the server makes if the settings name none.
    """

    name = "preview"
    signs = True
    claims = True

    def __init__(self, settings: PreviewSettings, default_key: Path) -> None:
        self._settings = settings
        self._default_key = default_key
        self._suffix = "." + hosts.bare(settings.domain)
        self._signer: Signer
        # Before a gateway if clients are to get it, else behind whatever else signs.
        self.priority = 50 if settings.endpoints else 5

    def check_config(self) -> None:
        """Read the key file that is named. Raises ConfigError."""
        if self._settings.key_file is not None:
            keyfile.read(Path(self._settings.key_file).expanduser())

    async def start(self) -> None:
        """Read the key. Raises ConfigError."""
        self._signer = Signer(await asyncio.to_thread(self._key))

    def _key(self) -> bytes:
        named = self._settings.key_file
        return keyfile.read_or_make(self._default_key) if named is None else keyfile.read(Path(named).expanduser())

    def needs_address(self, query: EndpointQuery) -> bool:
        return False

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """A preview host, signed if the client asks for that. Raises InvalidRequest for ``expires`` out of range."""
        if query.use_server_proxy or (query.expires is None and not self._settings.endpoints):
            return None
        place = PreviewTarget(query.port, query.record.id)
        if query.expires is not None:
            if not time.time() < query.expires <= LATEST:
                raise InvalidRequest(codes.INVALID_PARAMETER, f"expires must lie in the future and below {LATEST + 1}.")
            place = self._signer.sign(query.record.id, query.port, query.expires)
        return Endpoint(endpoint=f"{place}.{self._settings.domain}")

    def claim(self, host: str) -> HostTarget | None:
        name = hosts.bare(host)
        if not name.endswith(self._suffix):
            return None
        place = hosts.parse(name.removesuffix(self._suffix))
        if place is None:
            return None
        if place.moment is None:
            return HostTarget(place.sandbox_id, place.port, open=self._settings.open)
        if not self._signer.vouches_for(place):
            raise Unauthenticated(INVALID_LINK, "This link is not signed by this server.")
        if time.time() >= int(place.moment, 36):
            raise Unauthenticated(EXPIRED_LINK, "This link has expired; ask for another one.")
        return HostTarget(place.sandbox_id, place.port, signed=True)
