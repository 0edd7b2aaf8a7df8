"""From a request to an answer: redirects, gates, routes, errors."""

from __future__ import annotations

from collections.abc import Callable

from shoal_agent.http.errors import RUNTIME_ERROR, ApiError, Disconnected, ProtocolError
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, Response, error_response, text_response
from shoal_agent.http.routes import Routes
from shoal_agent.log import LOG

Gate = Callable[[Request], Response | None]
"""Looks at each request before its route; what it returns is the answer."""


class App:
    """Routes behind gates, which are asked in their order. `open_for` may add those of a path to the table."""

    def __init__(self, routes: Routes, gates: list[Gate], open_for: Callable[[str], None] | None = None) -> None:
        self.routes = routes
        self.gates = gates
        self._open_for = open_for

    async def answer(self, request: Request, raw_path: str) -> Answer:
        """Never raises but for a client that is gone or breaks the protocol: failures are answers."""
        try:
            return await self._answer(request, raw_path)
        except (Disconnected, ProtocolError):
            raise
        except Exception as error:
            return failure(error, request)

    async def _answer(self, request: Request, raw_path: str) -> Answer:
        if self._open_for is not None:
            self._open_for(request.path)
        found = self.routes.find(request.method, request.path, raw_path)
        if found is None and (redirect := self._redirect(request, raw_path)) is not None:
            return redirect
        for gate in self.gates:
            if (refused := gate(request)) is not None:
                return refused
        if found is None:
            return text_response("404 page not found", 404)
        handler, request.params = found
        return await handler(request) or Response()

    def _redirect(self, request: Request, raw_path: str) -> Response | None:
        """A known path with a slash at its end leads to the one without, before the token is looked at."""
        if len(request.path) < 2 or not request.path.endswith("/") or not raw_path.endswith("/"):
            return None
        if self.routes.find(request.method, request.path[:-1], raw_path[:-1]) is None:
            return None
        query = f"?{request.query_string}" if request.query_string else ""
        location = "/" + raw_path[:-1].lstrip("/") + query  # never another host's, as //host/ would be
        return Response(b"", 301 if request.method == "GET" else 307, [("Location", location)])


def failure(error: Exception, request: Request) -> Response:
    """The answer to an exception of a handler. What nobody foresaw is 500, and its traceback is logged."""
    if isinstance(error, ApiError):
        return error_response(error.status, error.code, str(error), list(error.headers))
    LOG.error("%s %s failed", request.method, request.path, cause=error)
    return error_response(500, RUNTIME_ERROR, str(error) or type(error).__name__)
