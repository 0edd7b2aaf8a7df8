"""The agent's application: its rooms behind its gates."""

from __future__ import annotations

from shoal_agent.agent import RunningAgent
from shoal_agent.door import Door
from shoal_agent.http.app import App
from shoal_agent.http.request import Request
from shoal_agent.http.routes import Routes
from shoal_agent.rooms import Rooms


def build(agent: RunningAgent) -> App:
    """The application of `agent`."""
    routes = Routes()
    rooms = Rooms(agent, routes)

    async def ping(request: Request) -> None:
        """200 without a body."""
        rooms.expect()

    routes.get("/ping", ping)
    if agent.options.runtime_init:
        rooms.open("latebinding")  # it has a gate before all others
    Door(agent)
    return App(routes, agent.gates, rooms.open_for)
