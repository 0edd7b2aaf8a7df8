"""Pause, resume and renewal of a sandbox (docs/wire/api.md section 7)."""

from __future__ import annotations

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.http.answers import answer_json, ask_policies
from shoal.http.parse import BodyDecoder
from shoal.models.requests import RenewExpiration
from shoal.plugin.interfaces import Operation, Resources, Route
from shoal.web.resources.sandboxes import ITEM
from shoal.web.seam import SandboxesApi

_renew: BodyDecoder[RenewExpiration] = BodyDecoder(RenewExpiration)


class ChangeRoutes(Resources):
    """Pause, resume, renewal."""

    name = "changes"

    def __init__(self, sandboxes: SandboxesApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._settings = settings

    def routes(self) -> list[Route]:
        """One for each."""
        return [
            Route(f"{ITEM}/pause", Pause(self._sandboxes)),
            Route(f"{ITEM}/resume", Resume(self._sandboxes)),
            Route(f"{ITEM}/renew-expiration", SandboxRenewal(self._sandboxes, self._settings)),
        ]


class Pause:
    """``/sandboxes/{sandbox_id}/pause``; a body is ignored."""

    def __init__(self, sandboxes: SandboxesApi) -> None:
        self._sandboxes = sandboxes

    @Operation(
        name="pauseSandbox",
        summary="Pause a sandbox: its processes are frozen.",
        status=202,
        errors=(400, 404, 409, 429, 501),
    )
    async def on_post(self, _req: Request, resp: Response, sandbox_id: str) -> None:
        """Pause it."""
        await self._sandboxes.pause(sandbox_id)
        resp.status = 202


class Resume:
    """``/sandboxes/{sandbox_id}/resume``; a body is ignored."""

    def __init__(self, sandboxes: SandboxesApi) -> None:
        self._sandboxes = sandboxes

    @Operation(name="resumeSandbox", summary="Resume a paused sandbox.", status=202, errors=(400, 404, 409, 429, 501))
    async def on_post(self, _req: Request, resp: Response, sandbox_id: str) -> None:
        """Resume it."""
        await self._sandboxes.resume(sandbox_id)
        resp.status = 202


class SandboxRenewal:
    """``/sandboxes/{sandbox_id}/renew-expiration``"""

    def __init__(self, sandboxes: SandboxesApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="renewSandboxExpiration",
        summary="Set a later expiry.",
        answers=(RenewExpiration,),
        errors=(400, 404, 409, 413),
        body=RenewExpiration,
        asks=True,
    )
    async def on_post(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """Move the expiry; answers the one in force, in UTC."""
        request = await _renew.require(req, self._limit)
        await ask_policies(req, request)
        answer_json(resp, RenewExpiration(expires_at=await self._sandboxes.renew(sandbox_id, request.expires_at)))
