"""A server without a key, and web pages of other origins; a request that brings two keys."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from tests.kernel.web.wired import Web

from shoal.config.settings import ServerSettings
from shoal.web.strangers import Strangers

Connect = Callable[[], httpx.AsyncClient]
EVIL = {"Origin": "http://evil.example"}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.fixture
def keyless(web: Web, connect: Connect) -> httpx.AsyncClient:
    """A client of a server on loopback that asks for no key."""
    web.strangers = Strangers.of(ServerSettings(host="127.0.0.1", eip="https://boxes.example:8443/base"))
    client = connect()
    client.base_url = httpx.URL("http://127.0.0.1:8080")
    return client


@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://127.0.0.1:8080.evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/sandboxes", "/sandboxes/x/proxy/80/", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_page_of_another_origin_is_refused(
    keyless: httpx.AsyncClient, web: Web, headers: dict[str, str], path: str, method: str
) -> None:
    answer = await keyless.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "FOREIGN_ORIGIN")
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_its_preflights_are_refused(keyless: httpx.AsyncClient) -> None:
    answer = await keyless.options("/v1/sandboxes", headers={**EVIL, **PREFLIGHT})
    assert (answer.status_code, answer.json()["code"]) == (403, "FOREIGN_ORIGIN")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example:8080", "evil.example", "127.0.0.1.evil.example", "192.168.1.5:8080"])
async def test_a_host_that_is_no_loopback_name_is_refused(keyless: httpx.AsyncClient, host: str) -> None:
    answer = await keyless.get("/v1/sandboxes", headers={"Host": host, "Origin": f"http://{host}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "FOREIGN_HOST")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8080"},
        {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
        {"Host": "[::1]:8080"},
        {"Host": "LOCALHOST"},
        {"Host": "boxes.example:8443"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
async def test_ones_own_requests_pass(keyless: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await keyless.get("/v1/sandboxes", headers=headers)).status_code == 200


async def test_on_another_address_the_names_are_not_known_but_origins_are(web: Web, connect: Connect) -> None:
    web.strangers = Strangers.of(ServerSettings(host="0.0.0.0"))
    client = connect()
    assert (await client.get("/v1/sandboxes")).status_code == 200
    assert (await client.get("/v1/sandboxes", headers=EVIL)).status_code == 403


async def test_what_is_public_stays_so(keyless: httpx.AsyncClient) -> None:
    assert (await keyless.get("/health", headers={**EVIL, "Host": "evil.example"})).status_code == 200
