"""Golden-image templates (docs/wire/api.md section 11), as far as a server that keeps none reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shoal.models.requests import Command, NonEmpty, Wire


class TemplateResources(Wire, forbid_unknown_fields=True):
    cpu: str | None = None
    memory: str | None = None
    disk: str | None = None


class TemplateReadiness(Wire, forbid_unknown_fields=True):
    probe: str | None = None
    warmup_seconds: Annotated[int, Meta(ge=0)] | None = None


class CreateTemplate(Wire, forbid_unknown_fields=True):
    """POST /templates; ``publish`` is where the built image goes."""

    image: NonEmpty
    publish: NonEmpty
    resource_limits: TemplateResources | None = None
    entrypoint: Command | None = None
    env: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    readiness: TemplateReadiness | None = None
    format: Literal["overlaybd", "native"] = "overlaybd"
