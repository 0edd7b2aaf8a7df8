"""Endpoint look-up (docs/wire/api.md section 8)."""

from __future__ import annotations

import re

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.models.sandbox import State
from shoal.web import agents
from shoal.web.parse import Query, port_of
from shoal.web.resources import answer
from shoal.web.seam import Sandboxes

_MADE = frozenset(State) - {State.PENDING}
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


class EndpointLookup:
    """``/sandboxes/{sandbox_id}/endpoints/{port}``"""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._wait_limit = settings.lifecycle.wait_limit_seconds
        self._eip = _SCHEME.sub("", (settings.server.eip or "").strip()).rstrip("/")

    async def on_get(self, req: Request, resp: Response, sandbox_id: str, port: str) -> None:
        """What a client is told about a port.

        An SDK that would give up at "not yet" is held until the sandbox is made, as it was by a create that waits:
        its own time limit is the one that its user has set for creates.
        """
        number = port_of(port)
        query = Query(req)
        use_server_proxy = query.boolean("use_server_proxy", default=False)
        expires = query.optional_integer("expires")
        query.check()
        if not agents.asks_again(req.user_agent):
            await answer.unless_left(req, self._sandboxes.wait(sandbox_id, _MADE, self._wait_limit))
        endpoint = await self._sandboxes.endpoint(
            sandbox_id, number, use_server_proxy=use_server_proxy, expires=expires, base=self._base(req)
        )
        answer.json(resp, endpoint)

    def _base(self, req: Request) -> str:
        """How clients reach this server: ``server.eip``, else the request's Host and mount prefix."""
        if self._eip:
            return self._eip
        return f"{req.netloc}/v1" if req.path.startswith("/v1/") else str(req.netloc)
