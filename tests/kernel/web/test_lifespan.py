"""`Shoal.asgi` is started and stopped by an ASGI server that is not ours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from tests.docs.pages import parts
from tests.support.servers import free_port

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.testing.pretend import PretendPlugin

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}


def configured(home: Path, **tables: Any) -> Shoal:
    raw = {
        "server": {"host": "127.0.0.1", "timeout_graceful_shutdown": 1},
        "store": {"path": str(home / "shoal.db")},
        "plugins": {"enabled": ["pretend"]},
        **tables,
    }
    return Shoal(Loaded(raw=raw), {"pretend": PretendPlugin()})


class Plain(uvicorn.Server):
    """uvicorn with its own protocols, on a port of its choosing, that says when it is up."""

    def __init__(self, app: Shoal, http: Literal["h11", "httptools"]) -> None:
        super().__init__(uvicorn.Config(app.asgi, port=0, http=http, lifespan="on", log_config=None))
        self.tried = asyncio.Event()
        self.code: object = None

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as error:  # how uvicorn ends, which would end the tests too
            self.code, self.should_exit = error.code, True
        finally:
            self.tried.set()

    async def __aenter__(self) -> Plain:
        self._serving = asyncio.create_task(self._serve())
        await self.tried.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        await self._serving

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_plain_uvicorn_starts_it_and_stops_it(tmp_path: Path, http: Literal["h11", "httptools"]) -> None:
    made = ""
    for restarted in (False, True):
        server = Plain(configured(tmp_path), http)
        async with server, httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/ready")).json()["status"] == "ready"
            if restarted:  # the first one has closed its store: another may have it, and finds what was there
                assert (await client.get("/v1/sandboxes")).json()["pagination"]["totalItems"] == 0
            made = (await client.post("/v1/sandboxes", json=BODY)).json()["id"]
            seen = (await client.get(f"/v1/sandboxes/{made}?wait=Running&timeout=30")).json()
            assert seen["status"]["state"] == "Running"


async def test_a_start_that_fails_is_the_asgi_servers_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = Plain(configured(tmp_path, store={"path": str(tmp_path / "file" / "shoal.db")}), "h11")
    async with server:
        assert server.code == 3
        assert not server.started


async def test_one_that_was_started_by_hand_is_not_started_again(tmp_path: Path) -> None:
    app = configured(tmp_path)
    await app.start()
    try:
        server = Plain(app, "h11")
        async with server, httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/ready")).json()["status"] == "ready"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as client:
            assert (await client.get("/ready")).json()["status"] == "ready"
    finally:
        await app.stop()


def test_the_page_says_how(tmp_path: Path) -> None:
    [part] = [part for part in parts("architecture.md") if part.heading == "Another ASGI server"]
    [(_, source)] = part.blocks
    (tmp_path / "module.py").write_text(source)
    (tmp_path / "shoal.toml").write_text(f'[server]\nhost = "127.0.0.1"\n[store]\npath = "{tmp_path}/shoal.db"\n')
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "module:app", "--port", str(port), "--lifespan", "on"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                assert "sqlite_store/store/sqlite" in httpx.get(f"http://127.0.0.1:{port}/ready").json()["components"]
                break
            except httpx.TransportError:
                time.sleep(0.05)
        assert process.poll() is None, process.stdout and process.stdout.read()
    finally:
        process.terminate()
        process.communicate(timeout=30)
