"""The policy of docs/plugins.md, installed by entry point beside strangers' runtime and authenticator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.docs.pages import parts
from tests.support.stranger import installed

from shoal.app import Shoal
from shoal.config.loader import Loaded

EXAMPLES = {part.heading.strip("`").partition("(")[0]: part.blocks for part in parts("plugins.md")}
FAMILIES = {"reef": "runtimes", "users": "authenticators", "owners": "policies"}
CREATE = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 60}
ALICE, BOB = {"x-remote-user": "alice"}, {"x-remote-user": "bob"}


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    sources = {name: EXAMPLES[f"shoal_register_{family}"][0][1] for name, family in FAMILIES.items()}
    with installed(tmp_path, monkeypatch, **sources):
        server = Shoal(Loaded(raw={"server": {"host": "127.0.0.1"}, "plugins": {"enabled": [*sources]}}))
        await server.start()
        try:
            transport = httpx.ASGITransport(server.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as found:
                yield found
        finally:
            await server.stop()


async def test_owners_see_their_own(client: httpx.AsyncClient) -> None:
    mine = (await client.post("/v1/sandboxes", json=CREATE, headers=ALICE)).json()["id"]
    assert (await client.get(f"/v1/sandboxes/{mine}", headers=ALICE)).status_code == 200
    for path in (f"/v1/sandboxes/{mine}", f"/v1/sandboxes/{mine}/endpoints/80", f"/v1/sandboxes/{mine}/proxy/80/"):
        got = await client.get(path, headers=BOB)
        missing = await client.get(path.replace(mine, "none"), headers=BOB)
        assert (got.status_code, got.text) == (404, missing.text.replace("none", mine))
    assert (await client.get("/v1/sandboxes", headers=BOB)).json()["pagination"]["totalItems"] == 0
    assert (await client.get("/v1/sandboxes", headers=ALICE)).json()["pagination"]["totalItems"] == 1


async def test_a_quota_holds_for_creates_at_one_moment(client: httpx.AsyncClient) -> None:
    creates = [client.post("/v1/sandboxes", json=CREATE, headers=ALICE) for _ in range(8)]
    answers = await asyncio.gather(*creates)
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [403] * 5
    assert {answer.json().get("code") for answer in answers} == {None, "QUOTA::SANDBOXES"}
    one = next(answer.json()["id"] for answer in answers if answer.status_code == 202)
    await client.delete(f"/v1/sandboxes/{one}", headers=ALICE)
    assert (await client.post("/v1/sandboxes", json=CREATE, headers=ALICE)).status_code == 202
