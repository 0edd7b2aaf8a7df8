"""``/docs`` and ``/redoc``: the OpenAPI document for people, by Swagger UI and ReDoc.

Every file comes from this server: the two programs from the installed package `fastapi_offline`, which is not imported,
the pages around them from ``shoal/web/pages``. All addresses are relative, so the pages work under a path prefix too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from falcon.asgi import Request, Response

from shoal.errors import NotSupported

PACKAGE: Final = "fastapi_offline"
NOT_INSTALLED: Final = "GENERAL::NOT_INSTALLED"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: both programs make style elements, and ReDoc's search is a worker."""
_LOGO: Final = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_NO_PICTURE: Final = b"data:,"

HTML, CSS, JAVASCRIPT = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"


def own(name: str) -> bytes:
    """A file of ``shoal/web/pages``."""
    return resources.files("shoal.web").joinpath("pages", name).read_bytes()


def packaged(name: str) -> bytes:
    """A file of the package. Raises NotSupported if that is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotSupported(NOT_INSTALLED, f"These pages need the package {PACKAGE.replace('_', '-')}.")
    return (Path(spec.submodule_search_locations[0]) / "static" / name).read_bytes()


def redoc() -> bytes:
    """ReDoc, without the logo that it would fetch from its makers' server."""
    return packaged("redoc.standalone.js").replace(_LOGO, _NO_PICTURE)


class StaticPage:
    """One file, read when it is first asked for."""

    def __init__(self, media_type: str, read: Callable[[], bytes]) -> None:
        self._media_type = media_type
        self._read = read
        self._content: bytes | None = None

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The file. Raises NotSupported if it is not installed."""
        if self._content is None:
            self._content = await asyncio.to_thread(self._read)
        resp.content_type = self._media_type
        resp.set_header("Content-Security-Policy", POLICY)
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Cache-Control", "no-cache" if self._media_type == HTML else "max-age=3600")
        resp.data = self._content


FILES: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "/docs": (HTML, lambda: own("docs.html")),
    "/docs/page.js": (JAVASCRIPT, lambda: own("docs.js")),
    "/docs/swagger-ui-bundle.js": (JAVASCRIPT, lambda: packaged("swagger-ui-bundle.js")),
    "/docs/swagger-ui.css": (CSS, lambda: packaged("swagger-ui.css")),
    "/redoc": (HTML, lambda: own("redoc.html")),
    "/redoc/page.js": (JAVASCRIPT, lambda: own("redoc.js")),
    "/redoc/redoc.standalone.js": (JAVASCRIPT, redoc),
}
"""Path → media type, and what reads the file."""


def pages() -> dict[str, StaticPage]:
    """A resource for each path."""
    return {path: StaticPage(media_type, read) for path, (media_type, read) in FILES.items()}
