"""The table of routes: every room adds its own."""

from __future__ import annotations

from collections.abc import Callable

from shoal_agent import code, commands, files, isolated, latebinding, metrics, proxy, pty, sessions
from shoal_agent.agent import RunningAgent
from shoal_agent.http.app import App
from shoal_agent.http.request import Request
from shoal_agent.http.routes import Routes

ROOMS: tuple[Callable[[RunningAgent, Routes], None], ...] = (
    commands.add_routes,
    sessions.add_routes,
    pty.add_routes,
    code.add_routes,
    files.add_routes,
    metrics.add_routes,
    proxy.add_routes,
    isolated.add_routes,
    latebinding.add_routes,
)
"""One `add_routes(agent, routes)` per room."""


async def ping(request: Request) -> None:
    """200 without a body."""


def build(agent: RunningAgent) -> App:
    """The application of `agent`."""
    routes = Routes()
    routes.get("/ping", ping)
    for add_routes in ROOMS:
        add_routes(agent, routes)
    return App(routes, agent.gates)
