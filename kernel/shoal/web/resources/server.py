"""The server itself: is it alive, is it ready, which version, what does it offer. Public, and mounted bare only."""

from __future__ import annotations

from typing import Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Struct, UnsetType

from shoal.web.resources import answer
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


class Static:
    """One JSON document that never changes while the server runs."""

    def __init__(self, document: object) -> None:
        self._content = document if isinstance(document, bytes) else msgspec.json.encode(document)

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The document."""
        answer.json_bytes(resp, self._content)


class Ready:
    """``/ready``: 200 when every component can do its work, else 503 with the reasons."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

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
        answer.json(resp, report)
