"""The server itself: is it alive, is it ready, which version, what does it offer. Public, and mounted bare only."""

from __future__ import annotations

from typing import Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Struct, UnsetType

from shoal.http.answers import answer_bytes, answer_json
from shoal.plugin.interfaces import Operation, Resources, Route
from shoal.web.seam import Readiness

NOT_READY = "GENERAL::NOT_READY"


class ReadyReport(Struct):
    """``components`` maps each component, as ``plugin/family/name``, to ``ok`` or why it cannot work.

    ``code`` and ``message`` come with a 503.
    """

    status: Literal["ready", "unavailable"]
    components: dict[str, str]
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Health(Struct):
    status: str


class Version(Struct):
    version: str


class ServerRoutes(Resources):
    """Health, version, readiness: open to everybody."""

    name = "server"

    def __init__(self, readiness: Readiness, version: str) -> None:
        self._readiness = readiness
        self._version = version

    def routes(self) -> list[Route]:
        """One for each."""
        return [
            Route("/health", HealthItem({"status": "healthy"}), public=True),
            Route("/version", VersionItem({"version": self._version}), public=True),
            Route("/ready", Ready(self._readiness), public=True),
        ]


class Static:
    """One JSON document that never changes while the server runs."""

    def __init__(self, document: object) -> None:
        self._content = document if isinstance(document, bytes) else msgspec.json.encode(document)

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The document."""
        answer_bytes(resp, self._content)


class HealthItem(Static):
    """``/health``"""

    @Operation(name="getHealth", summary="Check that the server answers.", answers=(Health,))
    async def on_get(self, req: Request, resp: Response) -> None:
        """That it is there."""
        await super().on_get(req, resp)


class VersionItem(Static):
    """``/version``"""

    @Operation(name="getVersion", summary="Read the version of the server.", answers=(Version,))
    async def on_get(self, req: Request, resp: Response) -> None:
        """Which one it is."""
        await super().on_get(req, resp)


class Ready:
    """``/ready``: 200 when every component can do its work, else 503 with the reasons."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    @Operation(
        name="getReadiness",
        summary="Check that every component can work.",
        answers=(ReadyReport,),
        error_bodies={503: ReadyReport},
    )
    async def on_get(self, _req: Request, resp: Response) -> None:
        """Ask the components."""
        reasons = await self._readiness()
        report = ReadyReport(status="ready", components={name: why or "ok" for name, why in reasons.items()})
        down = [name for name, why in reasons.items() if why is not None]
        if down:
            report.status, report.code = "unavailable", NOT_READY
            report.message = f"Not ready: {', '.join(down)}."
            resp.status = 503
            resp.set_header("Retry-After", "1")
        answer_json(resp, report)
