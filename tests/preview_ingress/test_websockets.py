"""WebSockets through a whole server in a process of its own: keys, hosts, pauses, the log, and the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.kernel.proxy.sockets import Service, ending, service
from tests.support.servers import ServerProcess
from websockets.asyncio.client import connect

KEY = {"OPEN-SANDBOX-API-KEY": "websocket-test-key-0123456789"}
DOMAIN = "preview.test:8443"
ON_ACCESS = {
    "access.idle.timeout.seconds": "3600",
    "access.idle.action": "pause",
    "access.resume": "on-access",
}


class Site:
    """A server with preview hosts, and sandboxes of it whose network is this machine's."""

    def __init__(self, home: Path) -> None:
        self.server = ServerProcess(
            home,
            '[runtime]\ntype = "local"\n[local]\nnetwork = "host"\n[apikey_auth]\nopen_proxy = false\n'
            f'[ingress.preview]\ndomain = "{DOMAIN}"\n',
            env={"OPENSANDBOX_SERVER_API_KEY": KEY["OPEN-SANDBOX-API-KEY"]},
        )
        self.http = httpx.Client(base_url=self.server.base, headers=KEY, timeout=60, trust_env=False)

    def sandbox(self, extensions: dict[str, str] | None = None) -> str:
        body = {
            "image": {"uri": "host"},
            "entrypoint": ["sleep", "600"],
            "resourceLimits": {},
            "timeout": 600,
            "extensions": extensions or {},
        }
        answer = self.http.post("/v1/sandboxes", json=body)
        assert answer.status_code == 202, answer.text
        made: str = answer.json()["id"]
        return made

    def connect(self, sandbox_id: str, port: int, host: str | None = None, **options: Any) -> connect:
        """By the proxy's path, or by a preview host."""
        path = f"/v1/sandboxes/{sandbox_id}/proxy/{port}/chat"
        uri = f"ws://127.0.0.1:{self.server.port}{path}" if host is None else f"ws://{host}/chat"
        return connect(uri, host="127.0.0.1", port=self.server.port, proxy=None, **options)

    async def refused(self, sandbox_id: str, port: int, host: str | None = None, **options: Any) -> tuple[int, str]:
        async with self.connect(sandbox_id, port, host, **options) as client:
            return await ending(client)

    def close(self) -> None:
        for item in self.http.get("/v1/sandboxes?pageSize=200").json()["items"]:
            self.http.delete(f"/v1/sandboxes/{item['id']}")
        self.http.close()
        assert self.server.stop() == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("websockets"))
    site.server.start()
    yield site
    site.close()


@pytest.fixture
async def backend() -> AsyncIterator[Service]:
    async with service() as running:
        yield running


def port_of(backend: Service) -> int:
    return int(backend.address.rpartition(":")[2])


async def test_the_key(site: Site, backend: Service) -> None:
    made, port = site.sandbox(), port_of(backend)
    assert await site.refused(made, port) == (1008, "missing API key")
    wrong = {"OPEN-SANDBOX-API-KEY": "wrong"}
    assert await site.refused(made, port, additional_headers=wrong) == (1008, "invalid API key")
    async with site.connect(made, port, additional_headers=KEY | {"Cookie": "a=1"}) as client:
        await client.send("hi")
        assert await client.recv() == "hi"
    assert backend.last.request is not None
    assert not {"open-sandbox-api-key", "cookie"} & {name.lower() for name in backend.last.request.headers}
    text = site.server.log.read_text()
    assert KEY["OPEN-SANDBOX-API-KEY"] not in text
    assert "Traceback" not in text


async def test_one_line_in_the_access_log(site: Site, backend: Service) -> None:
    made, port = site.sandbox(), port_of(backend)
    async with site.connect(made, port, additional_headers=KEY) as client:
        await client.send("hi")
        await client.recv()
        await asyncio.sleep(0.2)
        await client.close(4000)
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not lines:
            await asyncio.sleep(0.05)
            logged = [
                line for line in site.server.log.read_text().splitlines() if made in line and '"WEBSOCKET"' in line
            ]
            lines = [json.loads(line) for line in logged]
    [line] = lines
    assert (line["status"], line["close_code"], line["sandbox_id"]) == (101, 4000, made)
    assert line["duration_ms"] >= 200
    assert line["route"] == "/v1/sandboxes/{sandbox_id}/proxy/{port}"


async def test_preview_hosts(site: Site, backend: Service) -> None:
    """By key, or by a link that is itself the leave; cookies and authorization are the application's there."""
    made, port = site.sandbox(), port_of(backend)
    plain = f"{port}-{made}.{DOMAIN}"
    assert await site.refused(made, port, plain) == (1008, "missing API key")
    expires = int(time.time()) + 600
    answer = site.http.get(f"/v1/sandboxes/{made}/endpoints/{port}?expires={expires}")
    signed = answer.json()["endpoint"]
    own = {"Cookie": "session=1", "Authorization": "Bearer mine"}
    for host, sent in ((plain, own | KEY), (signed, own)):
        async with site.connect(made, port, host, additional_headers=sent, origin=f"https://{host}") as client:
            await client.send("hi")
            assert await client.recv() == "hi"
        assert backend.last.request is not None
        told = backend.last.request.headers
        assert (told["Cookie"], told["Authorization"]) == ("session=1", "Bearer mine")
        assert (told["Host"], told["Origin"]) == (host, f"https://{host}")
        assert "OPEN-SANDBOX-API-KEY" not in told
    forged = signed.replace(f"{port}-", f"{port + 1}-", 1)
    code, reason = await site.refused(made, port, forged)
    assert (code, reason) == (1008, "This link is not signed by this server.")


async def test_a_paused_sandbox(site: Site, backend: Service) -> None:
    """Resumed by the WebSocket if it wants to be, else the client reads that it is paused."""
    port = port_of(backend)
    for extensions in ({}, ON_ACCESS):
        made = site.sandbox(extensions)
        site.http.get(f"/v1/sandboxes/{made}?wait=Running&timeout=60")
        assert site.http.post(f"/v1/sandboxes/{made}/pause").status_code == 202
        paused = site.http.get(f"/v1/sandboxes/{made}?wait=Paused&timeout=60").json()
        assert paused["status"]["state"] == "Paused"
        if not extensions:
            code, reason = await site.refused(made, port, additional_headers=KEY)
            assert code == 1011
            assert "Paused" in reason
            continue
        async with site.connect(made, port, additional_headers=KEY) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
        assert site.http.get(f"/v1/sandboxes/{made}").json()["status"]["state"] == "Running"


async def test_a_sandbox_that_is_not_there(site: Site, backend: Service) -> None:
    code, reason = await site.refused("nobody", port_of(backend), additional_headers=KEY)
    assert code == 1011
    assert reason


async def test_the_server_is_stopped(tmp_path: Path, backend: Service) -> None:
    site = Site(tmp_path)
    site.server.start()
    made = site.sandbox()
    async with site.connect(made, port_of(backend), additional_headers=KEY) as client:
        await client.send("hi")
        assert await client.recv() == "hi"
        site.http.delete(f"/v1/sandboxes/{made}")
        site.http.close()
        assert await asyncio.to_thread(site.server.stop) == 0
        assert await ending(client) == (1012, "")
        assert await backend.closed() == (1001, "")
    text = site.server.log.read_text()
    assert "Traceback" not in text
    assert "ASGI" not in text
