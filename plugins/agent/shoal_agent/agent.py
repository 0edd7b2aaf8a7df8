"""What all rooms share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from shoal_agent.children import Children
from shoal_agent.environment import Environment
from shoal_agent.http.app import Gate
from shoal_agent.http.token import AccessToken
from shoal_agent.oom import OutOfMemory
from shoal_agent.options import Options

if TYPE_CHECKING:
    from shoal_agent.http import Fields, Stream


class RunningAgent:
    """One running agent. Rooms get it in `add_routes(agent, routes)` and keep their own state themselves."""

    def __init__(self, options: Options, environment: Environment) -> None:
        self.options = options
        self.environment = environment
        self.children = Children()
        """Starts processes and reports when they end."""
        self.oom = OutOfMemory()
        self.token = AccessToken(options.access_token)
        if options.access_token_sha256 is not None:
            self.token.expect_sha256(options.access_token_sha256)
        self.gates: list[Gate] = [self.token.gate]
        """Asked in their order before every route; a room may insert its own at the front."""
        self.on_start: list[Callable[[], Awaitable[None]]] = []
        """Awaited in order once the loop runs, before the first request; a room that is opened later cannot use it."""
        self.on_stop: list[Callable[[], Awaitable[None]]] = []
        """Awaited in order after the last request."""
        self.interrupters: list[Callable[[str], Awaitable[bool]]] = []
        """Asked in their order by `DELETE /command` and `DELETE /code`: each ends the run with that id, and returns
        whether it knows it."""
        self.start_command: Callable[[Fields], Stream]
        """Runs a command as the body of `POST /command` asks for it; set by the room of commands."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def run_in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that outlives its request and is kept from being collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
