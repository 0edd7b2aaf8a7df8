"""What clients of a real server are told behind a gateway, and what the server's own proxy then demands."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.servers import ServerProcess, free_port

from shoal_gateway.signing import LATEST, SigningKey, base36, signature

API_KEY = "gateway-test-key-0123456789"
KEY = SigningKey("k", b"a key that both sides know")
HEADER = "OpenSandbox-Secure-Access"

ADDRESSES = {"wildcard": "*.sandboxes.test:8443", "uri": "gw.test/base/", "header": "gw.test:28888"}


class Site:
    """A server behind a gateway of one mode, and a client with the API key."""

    def __init__(self, home: Path, mode: str) -> None:
        self.mode = mode
        self.server = ServerProcess(
            home,
            f'[runtime]\ntype = "local"\n[ingress]\nmode = "gateway"\n'
            f'[ingress.gateway]\naddress = "{ADDRESSES[mode]}"\nroute.mode = "{mode}"\n',
            env={
                "OPENSANDBOX_SERVER_API_KEY": API_KEY,
                "OPENSANDBOX_SECURE_ACCESS_KEYS": f"{KEY.id}={base64.b64encode(KEY.secret).decode()},z=b3RoZXI=",
                "OPENSANDBOX_SECURE_ACCESS_ACTIVE_KEY": KEY.id,
            },
        )
        headers = {"OPEN-SANDBOX-API-KEY": API_KEY}
        self.http = httpx.Client(base_url=self.server.base, headers=headers, timeout=60, trust_env=False)

    def create(self, *, secure: bool, command: list[str] | None = None) -> str:
        """The id of a new sandbox."""
        body = {
            "image": {"uri": "host"},
            "entrypoint": command or ["sleep", "600"],
            "resourceLimits": {},
            "timeout": 600,
            "secureAccess": secure,
        }
        answer = self.http.post("/v1/sandboxes", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def endpoint(self, sandbox_id: str, port: int = 8080, **query: str) -> httpx.Response:
        return self.http.get(f"/v1/sandboxes/{sandbox_id}/endpoints/{port}", params=query)

    def close(self) -> None:
        for item in self.http.get("/v1/sandboxes?pageSize=200").json()["items"]:
            self.http.delete(f"/v1/sandboxes/{item['id']}")
        self.http.close()
        assert self.server.stop() == 0


@pytest.fixture(scope="module", params=sorted(ADDRESSES))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp(request.param), request.param)
    site.server.start()
    yield site
    site.close()


@pytest.fixture(scope="module")
def plain(site: Site) -> str:
    """A sandbox that everybody may reach."""
    return site.create(secure=False)


@pytest.fixture(scope="module")
def secure(site: Site) -> str:
    """A sandbox with an access token."""
    return site.create(secure=True)


def expected(mode: str, *route: str) -> dict[str, object]:
    """The answer for a route, by the words of docs/wire/api.md section 8."""
    match mode:
        case "wildcard":
            return {"endpoint": f"{'-'.join(route)}.sandboxes.test:8443"}
        case "uri":
            return {"endpoint": "gw.test/base/" + "/".join(route)}
        case _:
            return {"endpoint": "gw.test:28888", "headers": {"OpenSandbox-Ingress-To": "-".join(route)}}


def test_an_endpoint_is_the_gateways(site: Site, plain: str) -> None:
    assert site.endpoint(plain).json() == expected(site.mode, plain, "8080")


def test_a_signed_endpoint(site: Site, secure: str) -> None:
    moment = int(time.time()) + 3600
    signed = signature(KEY, secure, 8080, base36(moment))
    answer = site.endpoint(secure, expires=str(moment))
    assert answer.json() == expected(site.mode, secure, "8080", base36(moment), signed)


def test_a_signature_that_the_gateway_would_take_for_a_path_is_left_out(site: Site, plain: str) -> None:
    moment = int(time.time()) + 3600
    signed = () if site.mode == "uri" else (base36(moment), signature(KEY, plain, 8080, base36(moment)))
    assert site.endpoint(plain, expires=str(moment)).json() == expected(site.mode, plain, "8080", *signed)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"expires": "-1"}, "SANDBOX::INVALID_PARAMETER"),
        ({"expires": "0"}, "SANDBOX::INVALID_PARAMETER"),
        ({"expires": "1700000000"}, "SANDBOX::INVALID_PARAMETER"),
        ({"expires": str(LATEST + 1)}, "SANDBOX::INVALID_PARAMETER"),
        ({"expires": str(LATEST), "use_server_proxy": "true"}, "SANDBOX::INVALID_PARAMETER"),
    ],
)
def test_signatures_that_cannot_be(site: Site, plain: str, query: dict[str, str], code: str) -> None:
    answer = site.http.get(f"/v1/sandboxes/{plain}/endpoints/8080", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("text", ["", "soon", "1.5"])
def test_a_moment_that_is_no_integer_is_a_schema_failure(site: Site, plain: str, text: str) -> None:
    assert site.endpoint(plain, expires=text).status_code == 422


def test_the_last_moment_that_a_gateway_can_read(site: Site, secure: str) -> None:
    assert base36(LATEST) in site.endpoint(secure, expires=str(LATEST)).text


def test_an_endpoint_through_the_server_keeps_all_headers_but_the_gateways(site: Site, plain: str, secure: str) -> None:
    host = site.server.base.removeprefix("http://")
    endpoint = f"{host}/v1/sandboxes/{plain}/proxy/8080"
    assert site.endpoint(plain, use_server_proxy="true").json() == {"endpoint": endpoint}
    guarded = site.endpoint(secure, use_server_proxy="true").json()
    assert list(guarded["headers"]) == [HEADER]


def test_an_access_token_is_told_with_each_endpoint_but_a_signed_one(site: Site, secure: str) -> None:
    answer = site.endpoint(secure).json()
    token = answer["headers"].pop(HEADER)
    assert len(base64.urlsafe_b64decode(token)) == 24
    assert answer["headers"] == expected(site.mode, secure, "8080").get("headers", {})
    assert site.endpoint(secure, port=44772).json()["headers"][HEADER] == token
    assert HEADER not in site.endpoint(secure, expires=str(int(time.time()) + 3600)).text


def test_each_sandbox_has_a_token_of_its_own_and_shows_it_nowhere_else(site: Site, secure: str) -> None:
    other = site.create(secure=True)
    tokens = [site.endpoint(each).json()["headers"][HEADER] for each in (secure, other)]
    assert tokens[0] != tokens[1]
    for page in (f"/v1/sandboxes/{secure}", f"/v1/sandboxes/{secure}/diagnostics/inspect", "/v1/sandboxes"):
        assert tokens[0] not in site.http.get(page).text
    assert tokens[0] not in site.server.log.read_text()


def test_the_servers_proxy_demands_the_token_and_keeps_it_from_the_sandbox(site: Site) -> None:
    port = free_port()
    answering = (
        "import http.server\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        text = str(self.headers).encode()\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Length', str(len(text)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(text)\n"
        f"http.server.ThreadingHTTPServer(('127.0.0.1', {port}), Handler).serve_forever()\n"
    )
    sandbox_id = site.create(secure=True, command=["python3", "-c", answering])
    token = site.endpoint(sandbox_id, port).json()["headers"][HEADER]
    path = f"/v1/sandboxes/{sandbox_id}/proxy/{port}/"
    for presented in ({}, {HEADER: "wrong"}, {HEADER: token[:-1]}, {HEADER: ""}):
        refused = site.http.get(path, headers=presented)
        assert (refused.status_code, refused.json()["code"]) == (401, "MISSING_OR_INVALID_SECURE_ACCESS")
    deadline = time.monotonic() + 60
    answer = site.http.get(path, headers={HEADER: token})
    while answer.status_code == 502 and time.monotonic() < deadline:  # Python takes a moment to listen
        time.sleep(0.05)
        answer = site.http.get(path, headers={HEADER: token})
    assert answer.status_code == 200
    assert token not in answer.text
    assert API_KEY not in answer.text


def test_the_token_outlives_the_server(site: Site, secure: str) -> None:
    before = site.endpoint(secure).json()
    site.server.kill()
    site.server.start()
    assert site.endpoint(secure).json() == before
