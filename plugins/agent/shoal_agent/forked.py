"""The agent in a process that is forked from one which has imported it: `shoal.plugin.interfaces.ForkedAgent`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Mapping

import shoal_agent

_ELSEWHERE = ("__main__", "bundle", "hooks", "placement", "pydriver")
"""Modules of this package that no agent imports."""


def prepare() -> None:
    """Imports all that an agent may need. Starts no thread and opens nothing."""
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]  # asyncio imports it if it can, and nothing here needs it
    _import_below("shoal_agent", shoal_agent.__path__)
    if sys.modules["ssl"] is None:
        del sys.modules["ssl"]
    _try_out()


def _import_below(package: str, path: list[str]) -> None:
    for found in pkgutil.iter_modules(path):
        if found.name in _ELSEWHERE:
            continue
        module = importlib.import_module(f"{package}.{found.name}")
        if found.ispkg:
            _import_below(module.__name__, list(module.__path__))


def _try_out() -> None:
    """Makes what an agent makes at its start, so that nothing is imported, compiled or looked up only then."""
    from shoal_agent import app, options
    from shoal_agent.agent import RunningAgent
    from shoal_agent.environment import Environment
    from shoal_agent.http.routes import Routes
    from shoal_agent.rooms import PLACES, Rooms

    agent, routes = RunningAgent(options.parse((), {}), Environment({})), Routes()
    app.build(agent)
    rooms = Rooms(agent, routes)
    for path in PLACES:
        rooms.open_for(f"/{path}/")


def serve(environment: Mapping[str, str], folder: str, listening: Callable[[], None]) -> int:
    """Is the agent until SIGTERM or SIGINT; returns its exit status.

    `environment` are its variables, `folder` is where its files lie now, and `listening` is called once it takes
    connections. Raises OSError if it cannot listen, ValueError for wrong variables. Call it in the main thread.
    """
    from shoal_agent import options, serving
    from shoal_agent.listening import listen

    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    _move(folder)
    given = options.parse((), environment)
    listener = listen(given.host, given.port)
    listening()
    return serving.run(given, listener, environment)


def _move(folder: str) -> None:
    """Lets later imports look there: what this process was started from is out of sight in a sandbox."""
    here = os.path.dirname(os.path.dirname(sys.executable))
    if not _below(here, shoal_agent.__path__[0]):
        return  # not out of a bundle

    def moved(path: str) -> str:
        return folder + path[len(here) :] if _below(here, path) else path

    sys.path[:] = [moved(path) for path in sys.path]
    sys.path_importer_cache.clear()
    for module in tuple(sys.modules.values()):
        path = getattr(module, "__path__", None)
        if isinstance(path, list):
            path[:] = [moved(place) for place in path]


def _below(folder: str, path: str) -> bool:
    return path.startswith(f"{folder}/")
