"""Falcon on uvicorn with nothing on it: the ceiling of what a Falcon application can answer."""

from __future__ import annotations

import falcon.asgi


class Health:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = "application/json"
        resp.data = b'{"status":"healthy"}'


app = falcon.asgi.App()
app.add_route("/health", Health())
