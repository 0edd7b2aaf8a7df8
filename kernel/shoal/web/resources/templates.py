"""Templates (docs/wire/api.md section 11): no runtime builds any, and every operation says so after its schema.

They are no part of the OpenAPI document, which describes what the server offers.
"""

from __future__ import annotations

from typing import NoReturn

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.errors import NotSupported
from shoal.http.parse import BodyDecoder, Query
from shoal.models import codes
from shoal.models.templates import CreateTemplate
from shoal.plugin.interfaces import Resources, Route
from shoal.web.resources.sandboxes import page_of

_create: BodyDecoder[CreateTemplate] = BodyDecoder(CreateTemplate)


class TemplateRoutes(Resources):
    """Templates, refused."""

    name = "templates"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def routes(self) -> list[Route]:
        """Of the collection and of an item."""
        return [
            Route("/templates", TemplateCollection(self._settings)),
            Route("/templates/{template_id}", TemplateItem()),
        ]


class TemplateCollection:
    """``/templates``"""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.server.max_body_bytes

    async def on_post(self, req: Request, _resp: Response) -> None:
        """Refuse to build one."""
        await _create.require(req, self._limit)
        _refuse()

    async def on_get(self, req: Request, _resp: Response) -> None:
        """Refuse to list them."""
        query = Query(req)
        page_of(query)
        query.check()
        _refuse()


class TemplateItem:
    """``/templates/{template_id}``"""

    async def on_get(self, _req: Request, _resp: Response, template_id: str) -> None:
        """Refuse to read one."""
        _refuse()

    async def on_delete(self, _req: Request, _resp: Response, template_id: str) -> None:
        """Refuse to delete one."""
        _refuse()


def _refuse() -> NoReturn:
    raise NotSupported(codes.TEMPLATES_NOT_SUPPORTED, "No enabled runtime has templates.")
