"""Endpoint look-up (docs/wire/api.md section 8)."""

from __future__ import annotations

import re

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.http.answers import answer_json
from shoal.http.parse import Query, port_of
from shoal.models.sandbox import State
from shoal.plugin.interfaces import Endpoint, Operation, Resources, Route, query_parameter
from shoal.web import agents
from shoal.web.resources.sandboxes import ITEM
from shoal.web.resources.waiting import unless_left
from shoal.web.seam import ReachApi, SandboxesApi

_MADE = frozenset(State) - {State.PENDING}
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


class EndpointRoutes(Resources):
    """Endpoint look-up."""

    name = "endpoints"

    def __init__(self, sandboxes: SandboxesApi, reach: ReachApi, settings: Settings) -> None:
        self._lookup = EndpointLookup(sandboxes, reach, settings)

    def routes(self) -> list[Route]:
        """The one."""
        return [Route(f"{ITEM}/endpoints/{{port}}", self._lookup)]


class EndpointLookup:
    """``/sandboxes/{sandbox_id}/endpoints/{port}``"""

    def __init__(self, sandboxes: SandboxesApi, reach: ReachApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._reach = reach
        self._wait_limit = settings.lifecycle.wait_limit_seconds
        self._eip = _SCHEME.sub("", (settings.server.eip or "").strip()).rstrip("/")

    @Operation(
        name="getSandboxEndpoint",
        summary="Read where a port of a sandbox is reached; waits for one that is Pending.",
        answers=(Endpoint,),
        errors=(400, 404),
        parameters=(
            query_parameter(
                "use_server_proxy", {"type": "boolean", "default": False}, "Whether to go through this server."
            ),
            query_parameter("expires", {"type": "integer"}, "Unix seconds until which a signed route holds."),
        ),
    )
    async def on_get(self, req: Request, resp: Response, sandbox_id: str, port: str) -> None:
        """The endpoint of a port, as a client gets it.

        An SDK that would give up at "not yet" is held until the sandbox is made, as it was by a create that waits:
        its own time limit is the one that its user has set for creates.
        """
        number = port_of(port)
        query = Query(req)
        use_server_proxy = query.boolean("use_server_proxy", default=False)
        expires = query.optional_integer("expires")
        query.check()
        if not agents.asks_again(req.user_agent):
            await unless_left(req, self._sandboxes.wait(sandbox_id, _MADE, self._wait_limit))
        endpoint = await self._reach.endpoint(
            sandbox_id, number, use_server_proxy=use_server_proxy, expires=expires, base=self._base(req)
        )
        answer_json(resp, endpoint)

    def _base(self, req: Request) -> str:
        """How clients reach this server: ``server.eip``, else the request's Host and mount prefix."""
        if self._eip:
            return self._eip
        return f"{req.netloc}/v1" if req.path.startswith("/v1/") else str(req.netloc)
