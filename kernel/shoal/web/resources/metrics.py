"""Events that SDKs report about themselves (docs/wire/api.md section 12): accepted, logged, best effort."""

from __future__ import annotations

from typing import Annotated, Literal

import structlog
from falcon.asgi import Request, Response
from msgspec import Meta

from shoal.config.settings import Settings
from shoal.http.parse import BodyDecoder
from shoal.models.requests import Wire
from shoal.plugin.interfaces import Operation, Resources, Route
from shoal.web import agents

log = structlog.get_logger("shoal.metrics")


class MetricsEvent(Wire):
    """How long a create took as its caller saw it, ``create_duration_ms`` in milliseconds."""

    event_type: Literal["sandbox.create"]
    create_duration_ms: Annotated[int, Meta(ge=0)]
    success: bool
    sandbox_id: str | None = None
    image: str | None = None


_event: BodyDecoder[MetricsEvent] = BodyDecoder(MetricsEvent)


class MetricsRoutes(Resources):
    """Events of SDKs."""

    name = "metrics"

    def __init__(self, settings: Settings) -> None:
        self._events = MetricsEvents(settings)

    def routes(self) -> list[Route]:
        """The one."""
        return [Route("/metrics/events", self._events)]


class MetricsEvents:
    """``/metrics/events``"""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="reportMetricsEvent",
        summary="Report an event, as SDKs do after a create.",
        status=204,
        errors=(413,),
        body=MetricsEvent,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Note the event at debug level, with the SDK that its User-Agent names."""
        event = await _event.require(req, self._limit)
        sdk = agents.SDK.search(req.user_agent or "")
        log.debug(
            "sandbox create reported",
            sandbox_id=event.sandbox_id,
            success=event.success,
            duration_ms=event.create_duration_ms,
            sdk=sdk[1].lower() if sdk else "unknown",
            sdk_version=sdk[2] if sdk else "unknown",
        )
        resp.status = 204
