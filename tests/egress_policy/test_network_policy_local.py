"""The network policy sub-resource through the whole server, to a real policy keeper in a real process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from tests.local_runtime.machine import can_bubblewrap, can_unshare
from tests.support.servers import free_port

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.models.sandbox import State
from shoal.models.workload import Workload
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Access, Networking, PolicyTarget, Renewal

pytestmark = pytest.mark.skipif(not (can_unshare() or can_bubblewrap()), reason="processes cannot be isolated here")

TOKEN = "kept-by-the-server"
ACCESS_TOKEN = "kept-by-the-caller"
KEEPER = """
import http.server, json, sys
class Keeper(http.server.BaseHTTPRequestHandler):
    policy = {"defaultAction": "deny", "egress": []}
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = {name.lower(): self.headers.get_all(name) for name in self.headers.keys()}
        status = 200 if told.get("opensandbox-egress-auth") == [sys.argv[2]] else 401
        if status == 200 and self.command == "PUT":
            Keeper.policy = json.loads(body)
            status = 418 if Keeper.policy.get("defaultAction") == "odd" else 200
        told = {"policy": Keeper.policy, "path": self.path, "body": body.decode(), "headers": told}
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    do_GET = do_PUT = do_PATCH = do_DELETE = answer
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Keeper).serve_forever()
"""


class Guard(Networking):
    """Policies are kept on one port of sandboxes, save those that are to have none."""

    name: ClassVar[str] = "guard"

    def __init__(self, port: int) -> None:
        self.port = port
        self.without: set[str] = set()
        self.secured = False

    def policy(self, workload: Workload) -> PolicyTarget | None:
        if workload.id in self.without:
            return None
        return PolicyTarget(self.port, "/policy", {"OPENSANDBOX-EGRESS-AUTH": TOKEN})

    def access_token(self, workload: Workload) -> str | None:
        return ACCESS_TOKEN if self.secured else None


class Ear(Renewal):
    """Remembers accesses."""

    name: ClassVar[str] = "ear"

    def __init__(self) -> None:
        self.heard: list[tuple[str, int | None]] = []

    def accessed(self, access: Access) -> None:
        self.heard.append((access.sandbox_id, access.port))


class Plugin:
    def __init__(self, port: int) -> None:
        self.guard, self.ear = Guard(port), Ear()

    @hookimpl
    def shoal_register_networking(self) -> list[Networking]:
        return [self.guard]

    @hookimpl
    def shoal_register_renewals(self) -> list[Renewal]:
        return [self.ear]


@pytest.fixture
def plugin() -> Plugin:
    return Plugin(free_port())


@pytest.fixture
async def http(tmp_path: Path, plugin: Plugin) -> AsyncIterator[httpx.AsyncClient]:
    raw = {
        "server": {"host": "127.0.0.1", "api_key": "k3y"},
        "store": {"path": str(tmp_path / "shoal.db")},
        "local": {"state_dir": str(tmp_path / "local")},
        "plugins": {"enabled": ["apikey_auth", "local_runtime", "plugin"]},
    }
    server = Shoal(Loaded(raw=raw), plugins={"plugin": plugin}, environ={})
    await server.start()
    headers = {"OPEN-SANDBOX-API-KEY": "k3y"}
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(server.asgi), base_url="http://shoal", timeout=60, headers=headers
    )
    try:
        async with client:
            yield client
    finally:
        for record in list(server.lifecycle.records()):
            await server.lifecycle.delete(record.id)
        await server.stop()


async def keeper(http: httpx.AsyncClient, port: int) -> str:
    """The id of a new sandbox whose policy keeper answers."""
    command = ["python3", "-c", KEEPER, str(port), TOKEN]
    body = {"image": {"uri": "host"}, "entrypoint": command, "resourceLimits": {}}
    sandbox_id: str = (await http.post("/v1/sandboxes", json=body)).json()["id"]
    made = (await http.get(f"/v1/sandboxes/{sandbox_id}?wait={State.RUNNING}&timeout=60")).json()
    assert made["status"]["state"] == State.RUNNING, made
    async with asyncio.timeout(60):
        where = f"/v1/sandboxes/{sandbox_id}/proxy/{port}/"
        while (await http.get(where)).status_code != 401:  # noqa: ASYNC110 - a process that starts has no event to offer
            await asyncio.sleep(0.02)
    return sandbox_id


async def test_a_policy_is_read_and_changed_in_the_sandbox(http: httpx.AsyncClient, plugin: Plugin) -> None:
    sandbox_id = await keeper(http, plugin.guard.port)
    where = f"/v1/sandboxes/{sandbox_id}/networkpolicy"
    plugin.ear.heard.clear()

    read = await http.get(where, headers={"OPENSANDBOX-EGRESS-AUTH": "forged", "Connection": "opensandbox-egress-auth"})
    told = read.json()
    assert (read.status_code, told["path"], told["body"]) == (200, "/policy", "")
    assert told["headers"]["opensandbox-egress-auth"] == [TOKEN]
    assert "open-sandbox-api-key" not in told["headers"]
    assert plugin.ear.heard == [(sandbox_id, plugin.guard.port)]

    wanted: dict[str, Any] = {"defaultAction": "allow", "egress": [{"action": "deny", "target": "a.example"}]}
    assert (await http.put(where, json=wanted)).json()["policy"] == wanted
    assert (await http.get(f"/sandboxes/{sandbox_id}/networkpolicy")).json()["policy"] == wanted
    patched = await http.patch(where, json=wanted["egress"])
    assert json.loads(patched.json()["body"]) == wanted["egress"]
    deleted = await http.request("DELETE", where, json=["a.example"])
    assert json.loads(deleted.json()["body"]) == ["a.example"]

    odd = await http.put(where, json={"defaultAction": "odd"})
    assert (odd.status_code, odd.json()["policy"]) == (418, {"defaultAction": "odd"})
    skipped = len(plugin.ear.heard)
    await http.get(where, headers={"OpenSandbox-Access-Renew": "skip"})
    assert len(plugin.ear.heard) == skipped == 6


async def test_who_may_not_does_not_get_there(http: httpx.AsyncClient, plugin: Plugin) -> None:
    sandbox_id = await keeper(http, plugin.guard.port)
    where = f"/v1/sandboxes/{sandbox_id}/networkpolicy"
    without_key = await http.get(where, headers={"OPEN-SANDBOX-API-KEY": ""})
    assert (without_key.status_code, without_key.json()["code"]) == (401, "MISSING_API_KEY")

    plugin.guard.secured = True
    without_token = await http.get(where)
    assert (without_token.status_code, without_token.json()["code"]) == (401, "MISSING_OR_INVALID_SECURE_ACCESS")
    with_token = await http.get(where, headers={"OpenSandbox-Secure-Access": ACCESS_TOKEN})
    assert with_token.status_code == 200
    assert "opensandbox-secure-access" not in with_token.json()["headers"]


async def test_a_sandbox_without_a_keeper(http: httpx.AsyncClient, plugin: Plugin) -> None:
    sandbox_id = await keeper(http, plugin.guard.port)
    where = f"/v1/sandboxes/{sandbox_id}/networkpolicy"
    plugin.guard.port = free_port()  # nobody listens there
    unheard = await http.get(where)
    assert (unheard.status_code, unheard.json()["code"]) == (502, "BACKEND_CONNECTION_FAILED")
    plugin.guard.without.add(sandbox_id)
    without = await http.put(where, json={"egress": []})
    assert (without.status_code, without.json()["code"]) == (502, "BACKEND_CONNECTION_FAILED")


async def test_a_paused_sandbox_says_so(http: httpx.AsyncClient, plugin: Plugin) -> None:
    sandbox_id = await keeper(http, plugin.guard.port)
    assert (await http.post(f"/v1/sandboxes/{sandbox_id}/pause")).status_code == 202
    answer = await http.get(f"/v1/sandboxes/{sandbox_id}/networkpolicy")
    assert (answer.status_code, answer.json()["code"]) == (409, "LOCAL::SANDBOX_NOT_RUNNING")
    await http.post(f"/v1/sandboxes/{sandbox_id}/resume")
    assert (await http.get(f"/v1/sandboxes/{sandbox_id}/networkpolicy")).status_code == 200
