"""Pause, resume and renewal of a sandbox (docs/wire/api.md section 7)."""

from __future__ import annotations

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.models.requests import RenewExpiration
from shoal.web.parse import Body
from shoal.web.resources import answer
from shoal.web.seam import Sandboxes

_renew: Body[RenewExpiration] = Body(RenewExpiration)


class Pause:
    """``/sandboxes/{sandbox_id}/pause``; a body is ignored."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def on_post(self, _req: Request, resp: Response, sandbox_id: str) -> None:
        """Pause it."""
        await self._sandboxes.pause(sandbox_id)
        resp.status = 202


class Resume:
    """``/sandboxes/{sandbox_id}/resume``; a body is ignored."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def on_post(self, _req: Request, resp: Response, sandbox_id: str) -> None:
        """Resume it."""
        await self._sandboxes.resume(sandbox_id)
        resp.status = 202


class Renewal:
    """``/sandboxes/{sandbox_id}/renew-expiration``"""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._limit = settings.server.max_body_bytes

    async def on_post(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """Move the expiry; answers the one in force, in UTC."""
        request = await _renew.require(req, self._limit)
        answer.json(resp, RenewExpiration(expires_at=await self._sandboxes.renew(sandbox_id, request.expires_at)))
