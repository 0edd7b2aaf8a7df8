"""Objects that a finalizer holds: what a server deleted is gone for everybody, what others deleted is Stopping."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.k8s_runtime.controllers import AGENT, BATCH, install
from tests.k8s_runtime.servers import configuration
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

from shoal_k8s.api import KubeApiError, KubeClient, Resource
from shoal_k8s.pods.objects import PODS
from shoal_k8s.providers.agent_sandbox import dns_1035

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

HOLD = "shoal.test/hold"
RESOURCES = {"pod": PODS, "batchsandbox": BATCH, "agent-sandbox": AGENT}
Object = dict[str, Any]


class Held:
    """A sandbox whose object has a finalizer; without a controller it is Pending where it is no pod."""

    def __init__(self, client: KubeClient, resource: Resource, namespace: str) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self.name = ""

    async def hold(self, sandbox_id: str) -> None:
        self.name = dns_1035(sandbox_id) if self._resource is AGENT else sandbox_id
        await self._finalizers([HOLD])

    async def delete(self) -> None:
        """As ``kubectl delete`` does."""
        await self._client.delete(self._resource, self._namespace, self.name)

    async def object(self) -> Object:
        return await self._client.get(self._resource, self._namespace, self.name, Object)

    async def let_go(self) -> None:
        with suppress(KubeApiError):
            await self._finalizers([])

    async def _finalizers(self, names: list[str]) -> None:
        body = {"metadata": {"finalizers": names}}
        await self._client.patch(self._resource, self._namespace, self.name, body, msgspec.Raw)


@pytest.fixture(params=list(RESOURCES))
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def held(provider: str, client: KubeClient, namespace: str) -> AsyncIterator[Held]:
    if provider != "pod":
        await install(client, RESOURCES[provider])
    held = Held(client, RESOURCES[provider], namespace)
    yield held
    if held.name:
        await held.let_go()


@pytest.fixture
def servers(held: Held, provider: str, namespace: str, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    made: list[ServerProcess] = []
    try:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            made.append(ServerProcess(tmp_path / name, configuration(namespace, provider)))
            made[-1].start()
        yield made
    finally:
        for server in made:
            server.stop()


@pytest.fixture
async def sandbox_id(servers: list[ServerProcess], held: Held) -> str:
    body = {
        "image": {"uri": "shoal-test/busybox:latest"},
        "entrypoint": ["sleep", "600"],
        "resourceLimits": {},
        "timeout": 600,
    }
    found = ask(servers[0], "POST", "", json=body).json()["id"]
    await held.hold(found)
    return str(found)


def ask(server: ServerProcess, method: str, path: str, **more: Any) -> httpx.Response:
    return httpx.request(method, f"{server.base}/v1/sandboxes{path}", timeout=60, **more)


def state(server: ServerProcess, sandbox_id: str) -> tuple[str, str] | int:
    """State and reason, or the status code of a refusal."""
    answer = ask(server, "GET", f"/{sandbox_id}")
    if answer.status_code != 200:
        return answer.status_code
    status = answer.json()["status"]
    return status["state"], status["reason"]


def all_say(servers: list[ServerProcess], sandbox_id: str, what: tuple[str, str] | int) -> None:
    for server in servers:
        eventually(lambda server=server: state(server, sandbox_id) == what)  # type: ignore[misc]  # bound now


def delete(server: ServerProcess, sandbox_id: str) -> int:
    return ask(server, "DELETE", f"/{sandbox_id}").status_code


STOPPING = ("Stopping", "DELETING")


async def test_what_others_deleted_is_stopping_until_it_is_gone(
    servers: list[ServerProcess], held: Held, sandbox_id: str
) -> None:
    await held.delete()
    all_say(servers, sandbox_id, STOPPING)
    later = {"expiresAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    renewal = ask(servers[1], "POST", f"/{sandbox_id}/renew-expiration", json=later)
    assert (renewal.status_code, renewal.json()["code"]) == (409, "KUBERNETES::INVALID_STATE")
    servers[0].kill()
    servers[0].start()
    assert state(servers[0], sandbox_id) == STOPPING
    await held.let_go()
    all_say(servers, sandbox_id, 404)


async def test_what_a_server_deleted_is_gone_for_all_and_for_those_that_come_later(
    servers: list[ServerProcess], held: Held, sandbox_id: str
) -> None:
    one, other = servers
    eventually(lambda: state(other, sandbox_id) != 404)
    assert delete(other, sandbox_id) == 204
    assert state(other, sandbox_id) == 404
    all_say(servers, sandbox_id, 404)
    for server in servers:
        server.kill()
        server.start()
        assert state(server, sandbox_id) == 404
        assert delete(server, sandbox_id) == 404
    assert (await held.object())["metadata"]["finalizers"] == [HOLD]
    assert ask(one, "GET", "").json()["items"] == []


async def test_what_others_deleted_first_and_a_server_then_is_gone(
    servers: list[ServerProcess], held: Held, sandbox_id: str
) -> None:
    await held.delete()
    all_say(servers, sandbox_id, STOPPING)
    assert delete(servers[1], sandbox_id) == 204
    all_say(servers, sandbox_id, 404)
    assert (await held.object())["metadata"]["deletionTimestamp"]
