"""Isolated sessions, which this agent does not have: `docs/wire/execd.md` section 11."""

from __future__ import annotations

from shoal_agent.agent import RunningAgent
from shoal_agent.http.errors import NOT_SUPPORTED, ApiError
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, json_response
from shoal_agent.http.routes import ANY, Routes

_MESSAGE = "this agent has no isolated sessions; a sandbox of its own isolates code"
_ABILITIES = ("available", "setpriv_available", "userns_available", "commit_supported", "diff_supported")


async def capabilities(request: Request) -> Answer:
    """200: nothing of it."""
    return json_response({**dict.fromkeys(_ABILITIES, False), "message": _MESSAGE})


async def refuse(request: Request) -> Answer:
    """501 and not 503, which clients try again."""
    raise ApiError(501, NOT_SUPPORTED, _MESSAGE)


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """`/v1/isolated/`."""
    routes.get("/v1/isolated/capabilities", capabilities)
    routes.add(ANY, "/v1/isolated/{rest...}", refuse)
