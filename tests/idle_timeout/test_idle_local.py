"""Real processes: frozen when nobody comes, thawed by the next request, with their memory as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.idle_timeout.clocks import Idle
from tests.local_runtime.machine import can_bubblewrap, can_unshare
from tests.support.servers import free_port
from tests.support.waiting import until

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.models.sandbox import State

COUNTER = """
import http.server, itertools, sys
seen = itertools.count(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(next(seen)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
EXTENSIONS = {
    "access.idle.timeout.seconds": "60",
    "access.idle.action": "pause",
    "access.resume": "on-access",
}

pytestmark = pytest.mark.skipif(not (can_unshare() or can_bubblewrap()), reason="processes cannot be isolated here")


@pytest.fixture
def idle() -> Idle:
    return Idle()


@pytest.fixture
async def server(tmp_path: Path, idle: Idle) -> AsyncIterator[Shoal]:
    raw = {
        "server": {"host": "127.0.0.1"},
        "store": {"path": str(tmp_path / "shoal.db")},
        "plugins": {"enabled": ["local_runtime", "idle"]},
    }
    server = Shoal(Loaded(raw=raw), plugins={"idle": idle}, environ={})
    await server.start()
    try:
        yield server
    finally:
        for record in list(server.lifecycle.records()):
            await server.lifecycle.delete(record.id)
        await server.stop()


async def test_frozen_when_idle_and_thawed_once_by_many_requests(server: Shoal, idle: Idle) -> None:
    engine, port = server.lifecycle, free_port()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(server.asgi), base_url="http://localhost", timeout=60
    ) as http:
        body = {"image": {"uri": "host"}, "entrypoint": ["python3", "-c", COUNTER, str(port)], "resourceLimits": {}}
        made = await http.post("/v1/sandboxes", json=body | {"extensions": EXTENSIONS})
        sandbox_id = made.json()["id"]
        path = f"/v1/sandboxes/{sandbox_id}/proxy/{port}/"

        def state() -> State:
            record = engine.find(sandbox_id)
            assert record is not None
            return record.state

        async def first() -> int:
            while (answer := await http.get(path)).status_code != 200:  # noqa: ASYNC110 - a process has no event to await
                await asyncio.sleep(0.05)
            return int(answer.text)

        async with asyncio.timeout(60):
            seen = await first()
            idle.advance(60)
            await until(lambda: state() is State.PAUSED)
            answers = await asyncio.gather(*(http.get(path) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(int(answer.text) for answer in answers) == list(range(seen + 1, seen + 21))
        assert state() is State.RUNNING
