"""Sandboxes of a runtime whose plugin is not enabled any more: said once, shown truly, and taken up when it is back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from structlog.testing import capture_logs
from tests.support.waiting import until

from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Runtime
from shoal.testing import server_with
from shoal.testing.pretend import PretendPlugin, PretendRuntime

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}


class Other(PretendRuntime):
    name = "other"
    scope = "OTHER"

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    async def delete(self, sandbox_id: str) -> None:
        await super().delete(sandbox_id)
        self.gone.set()


class OtherPlugin:
    def __init__(self) -> None:
        self.runtime = Other()

    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [self.runtime]


CONFIG = {"runtime": {"type": "pretend"}}


async def create(client: httpx.AsyncClient, runtime: str) -> str:
    made = (await client.post("/sandboxes", json={**BODY, "extensions": {"runtime": runtime}})).json()["id"]
    await client.get(f"/sandboxes/{made}?wait=Running&timeout=30")
    return str(made)


async def test_sandboxes_of_a_runtime_that_is_gone(tmp_path: Path) -> None:
    here, there = PretendPlugin(), OtherPlugin()
    async with (
        server_with(CONFIG, home=tmp_path, here=here, there=there) as server,
        httpx.AsyncClient(base_url=server.url + "/v1") as client,
    ):
        theirs = [await create(client, "other") for _ in range(3)]
        soon = datetime.now(UTC) + timedelta(seconds=1)
        renewed = await client.post(f"/sandboxes/{theirs[0]}/renew-expiration", json={"expiresAt": soon.isoformat()})
        assert renewed.status_code == 200
    with capture_logs() as logs:
        async with (
            server_with(CONFIG, home=tmp_path, here=here) as server,
            httpx.AsyncClient(base_url=server.url + "/v1") as client,
        ):
            await is_shown_and_refused(client, theirs[1])
            await until(lambda: any(entry["event"].startswith("a sandbox is over") for entry in logs))
            noted = (await client.get(f"/sandboxes/{theirs[0]}")).json()["status"]
            assert "It is over, and will be removed once the runtime answers." in noted["message"]
            assert (await client.get(server.url + "/ready")).status_code == 200
    warnings = [entry for entry in logs if entry["event"].startswith("sandboxes of a runtime that is not enabled")]
    assert [(entry["runtime"], entry["sandboxes"]) for entry in warnings] == [("other", 3)]
    over = [entry["sandbox_id"] for entry in logs if entry["event"].startswith("a sandbox is over")]
    assert over == [theirs[0]]
    async with (
        server_with(CONFIG, home=tmp_path, here=here, there=there) as server,
        httpx.AsyncClient(base_url=server.url + "/v1") as client,
    ):
        assert (await client.get(f"/sandboxes/{theirs[1]}")).json()["status"]["state"] == "Running"
        await there.runtime.gone.wait()
        view = server.app.lifecycle.view
        await until(lambda: view.get(theirs[0]) is None)
    assert {workload.id for workload in await there.runtime.list()} == set(theirs[1:])


async def is_shown_and_refused(client: httpx.AsyncClient, sandbox_id: str) -> None:
    told = (await client.get(f"/sandboxes/{sandbox_id}")).json()["status"]
    assert (told["state"], told["reason"]) == ("Unknown", "RUNTIME_NOT_ENABLED")
    assert told["message"] == (
        "The runtime 'other' of this sandbox is not enabled on this server. Its last known state is Running."
    )
    endpoint = await client.get(f"/sandboxes/{sandbox_id}/endpoints/80")  # which waits 20 s for an address to come
    assert (endpoint.status_code, endpoint.json()["code"]) == (404, "RUNTIME::NOT_ENABLED")
    assert "'other'" in endpoint.json()["message"]
    for refused in (
        await client.get(f"/sandboxes/{sandbox_id}/proxy/80/"),
        await client.delete(f"/sandboxes/{sandbox_id}"),
        await client.post(f"/sandboxes/{sandbox_id}/pause"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (503, "RUNTIME::NOT_ENABLED")
