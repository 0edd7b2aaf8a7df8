"""`/ready` names each component by plugin, family and name."""

from __future__ import annotations

from pathlib import Path

import httpx
from tests.kernel.lifecycle.fakes import MemoryRuntime, World

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.errors import Unavailable
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Observer, Runtime, Transition


class Namesake(Observer):
    """Bears the name of a runtime, and is down."""

    name = MemoryRuntime.name

    def transition(self, event: Transition) -> None:
        return None

    async def ping(self) -> None:
        raise Unavailable("NAMESAKE::DOWN", "The namesake is down.")


class Plugin:
    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [MemoryRuntime(World())]

    @hookimpl
    def shoal_register_observers(self) -> list[Observer]:
        return [Namesake()]


async def test_a_component_that_is_down_is_shown_beside_one_of_the_same_name(tmp_path: Path) -> None:
    raw = {
        "server": {"host": "127.0.0.1"},
        "store": {"path": str(tmp_path / "shoal.db")},
        "plugins": {"enabled": ["mine"]},
    }
    server = Shoal(Loaded(raw=raw), {"mine": Plugin()})
    await server.start()
    try:
        transport = httpx.ASGITransport(server.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/ready")
    finally:
        await server.stop()
    assert answer.status_code == 503
    assert answer.json()["components"]["mine/runtime/memory"] == "ok"
    assert answer.json()["components"]["mine/observer/memory"] == "The namesake is down."
    assert answer.json()["message"] == "Not ready: mine/observer/memory."
