"""The agent's HTTP/1.1 server, on asyncio and the standard library alone.

A room registers plain coroutines in a table of routes::

    def add_routes(agent: Agent, routes: Routes) -> None:
        routes.get("/things/{name}", show)

    async def show(request: Request) -> Answer | None:
        name = request.params["name"]                  # decoded
        depth = request.query("depth")                 # first value or None; required_query(...): 400 MISSING_QUERY
        if name not in THINGS:
            raise ApiError(404, errors.FILE_NOT_FOUND, f"no thing {name}")
        return json_response(THINGS[name])             # None: 200 without a body

- **JSON in**: `fields = await request.fields()`, then `fields.text("cwd", "")`, `fields.integer("timeout", 0)`,
  `fields.flag("background")`, `fields.texts("argv")`, `fields.text_map("envs")`; wrong types are 400 by themselves.
  A body that is a map of free keys, or a list: `await request.json()`.
- **Bodies** are streamed with back-pressure: `async for piece in request.body: ...`, or `await request.body.read()`.
- **Answers**: `Response`, `json_response`, `text_response`, `Stream` (chunks of an async iterator, a clean end at
  once), `FileResponse`, `Upgrade` (raw bytes both ways through a `ClientTunnel`), `websocket.accept`.
- **Blocking work** (file systems) goes to a thread: `await asyncio.to_thread(...)`.
- **A client that goes away**: reads of the body and writes raise `Disconnected`, which a handler lets pass; the
  iterator of a `Stream` is cancelled where it waits. Other handlers run to their end.
"""

from __future__ import annotations

from shoal_agent.http import errors
from shoal_agent.http.body import Body
from shoal_agent.http.errors import ApiError, Disconnected
from shoal_agent.http.fields import Fields
from shoal_agent.http.request import Request
from shoal_agent.http.response import (
    Answer,
    FileResponse,
    Response,
    Stream,
    Upgrade,
    json_response,
    text_response,
)
from shoal_agent.http.routes import ANY, Routes
from shoal_agent.http.tunnel import ClientTunnel

__all__ = [
    "ANY",
    "Answer",
    "ApiError",
    "Body",
    "ClientTunnel",
    "Disconnected",
    "Fields",
    "FileResponse",
    "Request",
    "Response",
    "Routes",
    "Stream",
    "Upgrade",
    "errors",
    "json_response",
    "text_response",
]
