"""What blocks the event loop for more than a second is named in the log, while it does."""

from __future__ import annotations

import threading
from typing import Any

import httpx
from structlog.testing import capture_logs

from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Observer, Transition
from shoal.testing import server_with

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}


class Sleeper(Observer):
    """Blocks until it is named, or a minute has passed."""

    name = "sleeper"

    def __init__(self, logs: list[Any]) -> None:
        self._logs = logs
        self.slept = False

    def transition(self, event: Transition) -> None:
        if not self.slept:
            self.slept = True
            self._sleep()

    def _sleep(self) -> None:
        for _ in range(600):
            if any(entry["event"] == "a plugin blocks the event loop" for entry in self._logs):
                return
            threading.Event().wait(0.1)

    @hookimpl
    def shoal_register_observers(self) -> list[Observer]:
        return [self]


async def test_an_observer_that_blocks_is_named_while_it_blocks() -> None:
    with capture_logs() as logs:
        async with server_with(reef=Sleeper(logs)) as server, httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.post("/v1/sandboxes", json=BODY, timeout=100)).status_code == 202
    [named] = [entry for entry in logs if entry["event"] == "a plugin blocks the event loop"]
    assert named["plugin"] == "reef"
    assert named["where"].startswith(f"{__name__}.Sleeper._sleep, line ")
    [over] = [entry for entry in logs if entry["event"] == "the event loop was blocked"]
    assert over["plugin"] == "reef"


async def test_the_thread_ends_with_the_server() -> None:
    async with server_with():
        assert "shoal-stalls" in {thread.name for thread in threading.enumerate()}
    assert "shoal-stalls" not in {thread.name for thread in threading.enumerate()}
