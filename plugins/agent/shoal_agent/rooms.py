"""The rooms of the agent, each opened with the first request for one of its paths."""

from __future__ import annotations

import asyncio
from importlib import import_module

from shoal_agent import later
from shoal_agent.agent import RunningAgent
from shoal_agent.http.routes import Routes

PLACES: dict[str, tuple[str, ...]] = {
    "command": ("commands",),
    "session": ("sessions",),
    "pty": ("pty",),
    "code": ("commands", "code"),
    "files": ("files",),
    "directories": ("files",),
    "v1/filesystem": ("files",),
    "metrics": ("metrics",),
    "proxy": ("proxy",),
    "v1/isolated": ("isolated",),
    "ready": ("latebinding",),
    "internal": ("latebinding",),
}
"""The beginning of a path → the modules of this package that serve it, each with its `add_routes(agent, routes)`."""
EXPECTED_SECONDS = 0.004
"""Between the first answer to a ping and the preparations: the server asks first, and then its client."""
_SOON = (
    *("json", "subprocess", "shoal_agent.commands.events", "shoal_agent.commands.spec", "shoal_agent.commands.launch"),
    *("shoal_agent.commands.command", "shoal_agent.commands.table"),
)
"""What a command takes, in pieces that are imported in about a millisecond each."""


class Rooms:
    """Importing all of them would double the time until the agent answers."""

    def __init__(self, agent: RunningAgent, routes: Routes) -> None:
        self._agent = agent
        self._routes = routes
        self._open: set[str] = set()
        self._expecting = False

    def open_for(self, path: str) -> None:
        """Lets the table of routes have those of a path, decoded; nothing for a path that is nobody's."""
        parts = path.split("/", 3)[1:]
        place = "/".join(parts[:2]) if parts[:1] == ["v1"] else "".join(parts[:1])
        for name in PLACES.get(place, ()):
            self.open(name)

    def open(self, name: str) -> None:
        """One of them, by the name of its module."""
        if name not in self._open:
            import_module(f"shoal_agent.{name}").add_routes(self._agent, self._routes)
            self._open.add(name)

    def expect(self) -> None:
        """Somebody asked whether the agent runs: before long the first command comes, and is prepared for."""
        if not self._expecting:
            self._expecting = True
            asyncio.get_running_loop().call_later(
                EXPECTED_SECONDS, lambda: self._agent.run_in_background(self._prepare())
            )

    async def _prepare(self) -> None:
        """Opens the commands, with which nearly every sandbox begins; requests are answered in between."""
        for name in _SOON:
            later.load(name)
            import_module(name)
            await asyncio.sleep(0)
        self.open("commands")
