"""A whole server in this process, for tests of plugins that act on access: real web layer, proxy, engine and store.

Only the runtime is the small world of the engine tests, so that a test can see and slow down each call; its sandboxes
are all at 127.0.0.1, where a `Backend` of the test listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.kernel.lifecycle.fakes import MemoryRuntime, Recorder, World
from tests.support.waiting import until

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Observer, Runtime


class Machine:
    """A plugin: a runtime over a world, and an observer that remembers."""

    def __init__(self, world: World) -> None:
        self.runtime, self.recorder = MemoryRuntime(world), Recorder()

    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [self.runtime]

    @hookimpl
    def shoal_register_observers(self) -> list[Observer]:
        return [self.recorder]


class Backend:
    """An HTTP service that answers every request with 200, once `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.requests = 0
        self.port = 0
        self._server: asyncio.Server

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await self.open.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Site:
    """A running server, its world, and a client."""

    def __init__(self, app: Shoal, world: World, machine: Machine, http: httpx.AsyncClient, backend: Backend) -> None:
        self.app, self.lifecycle, self.world, self.http, self.backend = app, app.lifecycle, world, http, backend
        self.recorder = machine.recorder

    async def create(self, extensions: Mapping[str, str], lasting: int | None = 3600) -> httpx.Response:
        """POST a sandbox that expires after ``lasting`` seconds, or never."""
        body: dict[str, Any] = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}}
        body |= {"extensions": dict(extensions)} | ({} if lasting is None else {"timeout": lasting})
        return await self.http.post("/v1/sandboxes", json=body)

    async def running(self, extensions: Mapping[str, str], lasting: int | None = 3600) -> str:
        """The id of a new sandbox that runs."""
        answer = await self.create(extensions, lasting)
        assert answer.status_code == 202, answer.text
        sandbox_id: str = answer.json()["id"]
        await until(lambda: self.state(sandbox_id) is State.RUNNING)
        return sandbox_id

    async def reach(self, sandbox_id: str, **headers: str) -> httpx.Response:
        """A request to it, through the proxy."""
        return await self.http.get(f"/v1/sandboxes/{sandbox_id}/proxy/{self.backend.port}/", headers=headers)

    def record(self, sandbox_id: str) -> SandboxRecord:
        """Its record, which must be there."""
        record = self.lifecycle.find(sandbox_id)
        assert record is not None
        return record

    def state(self, sandbox_id: str) -> State | None:
        """Its state; None if it is gone."""
        record = self.lifecycle.find(sandbox_id)
        return record.state if record else None


@asynccontextmanager
async def site(
    home: Path, *enabled: str, world: World | None = None, raw: Mapping[str, Any] | None = None, **plugins: object
) -> AsyncIterator[Site]:
    """A server with the plugins ``enabled`` by name, and those handed in as objects.

    Args:
        raw: more of the configuration file.
    """
    world = world or World()
    machine = Machine(world)
    configuration = {
        "server": {"host": "127.0.0.1"},
        "store": {"path": str(home / "shoal.db")},
        "plugins": {"enabled": ["machine", *enabled, *plugins]},
        **(raw or {}),
    }
    app = Shoal(Loaded(raw=configuration), plugins={"machine": machine, **plugins}, environ={})
    await app.start()
    try:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost", timeout=60)
        async with client as http, Backend() as backend:
            yield Site(app, world, machine, http, backend)
    finally:
        await app.stop()
