"""The key where the Go SDK sends it: in the headers of a sandbox's own services, on proxied requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.kernel.proxy.harness import Upstream, answering, headers, ok
from tests.kernel.proxy.sockets import ending, service
from tests.support.servers import ServerProcess
from websockets.asyncio.client import connect

KEY = "service-header-test-key-0123456789"
NAMES = ["X-EXECD-ACCESS-TOKEN", "OPENSANDBOX-EGRESS-AUTH"]
DOMAIN = "preview.test:8443"


class Site:
    """A server that wants a key everywhere, and a sandbox of it whose network is this machine's."""

    def __init__(self, home: Path) -> None:
        keys = '[[apikey_auth.keys]]\nname = "go"\nenv = "GO_KEY"\n'
        previews = f'[ingress.preview]\ndomain = "{DOMAIN}"\n'
        self.server = ServerProcess(
            home, f'[runtime]\ntype = "local"\n[local]\nnetwork = "host"\n{previews}{keys}', env={"GO_KEY": KEY}
        )
        self.server.start()
        self.http = httpx.Client(base_url=self.server.base, timeout=60, trust_env=False)
        body = {"image": {"uri": "host"}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600}
        self.key = {"OPEN-SANDBOX-API-KEY": KEY}
        self.id = self.http.post("/v1/sandboxes", json=body, headers=self.key).json()["id"]
        self.http.get(f"/v1/sandboxes/{self.id}?wait=Running&timeout=60", headers=self.key)

    def close(self) -> None:
        self.http.delete(f"/v1/sandboxes/{self.id}", headers=self.key)
        self.http.close()
        assert self.server.stop() == 0

    def path(self, address: str) -> str:
        return f"/v1/sandboxes/{self.id}/proxy/{address.rpartition(':')[2]}/"

    async def get(self, address: str, by: str, **sent: str) -> httpx.Response:
        path, host = self.path(address), httpx.URL(self.server.base).netloc.decode()
        if by == "host":
            path, host = "/", f"{address.rpartition(':')[2]}-{self.id}.{DOMAIN}"
        async with httpx.AsyncClient(base_url=self.server.base, trust_env=False) as client:
            return await client.get(path, headers={"host": host, **sent})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("service-headers"))
    yield site
    site.close()


@pytest.fixture
async def backend() -> AsyncIterator[Upstream]:
    async with answering(ok()).running() as upstream:
        yield upstream


@pytest.mark.parametrize("by", ["path", "host"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_request(site: Site, backend: Upstream, name: str, by: str) -> None:
    assert (await site.get(backend.address, by, **{name: KEY})).status_code == 200
    assert (await site.get(backend.address, by, **site.key, **{name: "of the sandbox"})).status_code == 200
    assert (await site.get(backend.address, by, **site.key, **{name: KEY})).status_code == 200
    for wrong in ({name: "of the sandbox"}, {name: KEY, "OPEN-SANDBOX-API-KEY": "wrong"}):
        assert (await site.get(backend.address, by, **wrong)).status_code == 401
    assert [headers(head, name.encode()) for head in backend.heads] == [[], [b"of the sandbox"], []]
    assert not any(KEY.encode() in head for head in backend.heads)


@pytest.mark.parametrize("by", ["path", "host"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_websocket(site: Site, name: str, by: str) -> None:
    async with service() as backend:
        port = backend.address.rpartition(":")[2]
        at = f"127.0.0.1:{site.server.port}" if by == "path" else f"{port}-{site.id}.{DOMAIN}"
        uri = f"ws://{at}{site.path(backend.address) if by == 'path' else '/'}"
        for sent in ({name: KEY}, {**site.key, name: "of the sandbox"}):
            async with connect(
                uri, host="127.0.0.1", port=site.server.port, proxy=None, additional_headers=sent
            ) as client:
                await client.send("one")
                assert await client.recv() == "one"
            assert backend.last.request is not None
            told = backend.last.request.headers
            assert told.get(name) == (None if sent[name] == KEY else "of the sandbox")
            assert KEY not in str(told)
        async with connect(
            uri, host="127.0.0.1", port=site.server.port, proxy=None, additional_headers={name: "of the sandbox"}
        ) as client:
            assert await ending(client) == (1008, "missing API key")


@pytest.mark.parametrize("name", NAMES)
def test_the_api_itself_takes_no_key_from_there(site: Site, name: str) -> None:
    assert site.http.get("/v1/sandboxes", headers={name: KEY}).status_code == 401


@pytest.mark.parametrize("by", ["path", "host"])
async def test_a_page_without_a_key_names_the_other_ways(site: Site, backend: Upstream, by: str) -> None:
    answer = await site.get(backend.address, by)
    message = answer.json()["message"]
    assert (answer.status_code, answer.json()["code"]) == (401, "MISSING_API_KEY")
    assert "preview host" in message
    assert "open_proxy" in message
    assert "preview" not in site.http.get("/v1/sandboxes").json()["message"]
