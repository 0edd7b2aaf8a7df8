"""Requests to preview hosts of a real server: who may come, and what the application sees."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from tests.support.servers import ServerProcess, free_port

KEY = {"OPEN-SANDBOX-API-KEY": "preview-test-key-0123456789"}
DOMAIN = "preview.test:8443"
ECHO = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        seen = {"method": self.command, "path": self.path, "headers": self.headers.items(), "body": body}
        text = json.dumps(seen).encode()
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "/login?next=%2Faway")
        self.send_header("Set-Cookie", "one=1; Path=/")
        self.send_header("Set-Cookie", "two=2; Path=/")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
    do_GET = do_POST = do_OPTIONS = do_HEAD = answer
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Site:
    """A server with preview hosts, and an application in a sandbox of it."""

    def __init__(self, home: Path, settings: str, *, secure: bool) -> None:
        self.secure = secure
        self.server = ServerProcess(
            home,
            f'[runtime]\ntype = "local"\n[local]\nnetwork = "host"\n[ingress.preview]\ndomain = "{DOMAIN}"\n{settings}',
            env={"OPENSANDBOX_SERVER_API_KEY": KEY["OPEN-SANDBOX-API-KEY"]},
        )
        self.http = httpx.Client(base_url=self.server.base, timeout=60, trust_env=False)
        self.port = free_port()
        self.id = ""

    def start(self) -> None:
        self.server.start()
        body = {
            "image": {"uri": "host"},
            "entrypoint": ["python3", "-c", ECHO, str(self.port)],
            "resourceLimits": {},
            "timeout": 600,
            "secureAccess": self.secure,
        }
        answer = self.http.post("/v1/sandboxes", json=body, headers=KEY)
        assert answer.status_code == 202, answer.text
        self.id = answer.json()["id"]
        deadline = time.monotonic() + 60
        while self.get(self.signed(), headers=KEY).status_code == 502 and time.monotonic() < deadline:
            time.sleep(0.05)  # Python takes a moment to listen

    def stop(self) -> None:
        self.http.delete(f"/v1/sandboxes/{self.id}", headers=KEY)
        self.http.close()
        assert self.server.stop() == 0

    @property
    def plain(self) -> str:
        """The unsigned host."""
        return f"{self.port}-{self.id}.{DOMAIN}"

    def signed(self, seconds: int = 600) -> str:
        """A signed host."""
        answer = self.endpoint(expires=str(int(time.time()) + seconds))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["endpoint"])

    def endpoint(self, **query: str) -> httpx.Response:
        return self.http.get(f"/v1/sandboxes/{self.id}/endpoints/{self.port}", params=query, headers=KEY)

    def get(
        self, host: str, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """A request to a host, as whoever resolves it to this server would send it."""
        return self.http.request(method, path, headers={"Host": host, **(headers or {})})

    def seen(self, host: str, path: str = "/", **headers: str) -> dict[str, str]:
        """The headers that the application saw."""
        answer = self.get(host, path, headers=headers)
        assert answer.status_code == 200, answer.text
        return {name.lower(): value for name, value in json.loads(answer.text)["headers"]}


def site_of(
    tmp_path_factory: pytest.TempPathFactory, name: str, settings: str, *, secure: bool = False
) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp(name), settings, secure=secure)
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from site_of(tmp_path_factory, "default", "")


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from site_of(tmp_path_factory, "open", "open = true\nendpoints = true\n")


@pytest.fixture(scope="module")
def secure_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Open hosts, behind a gateway, before which previews come; the sandbox has an access token."""
    gateway = '[ingress]\nmode = "gateway"\n[ingress.gateway]\naddress = "gw.test"\nroute.mode = "uri"\n'
    yield from site_of(tmp_path_factory, "secure", f"open = true\nendpoints = true\n{gateway}", secure=True)


def test_a_plain_host_wants_the_key_and_keeps_it_from_the_application(site: Site) -> None:
    refused = site.get(site.plain)
    assert (refused.status_code, refused.json()["code"]) == (401, "MISSING_API_KEY")
    wrong = site.get(site.plain, headers={"OPEN-SANDBOX-API-KEY": "wrong"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "INVALID_API_KEY")
    assert "open-sandbox-api-key" not in site.seen(site.plain, **KEY)


def test_a_signed_host_wants_nothing_more(site: Site) -> None:
    host = site.signed()
    assert host.startswith(f"{site.port}-{site.id}-")
    assert host.endswith(f".{DOMAIN}")
    assert site.get(host).status_code == 200
    assert "open-sandbox-api-key" not in site.seen(host, **KEY)


def test_a_signed_host_is_the_same_without_port_and_in_capitals(site: Site) -> None:
    assert site.get(site.signed().removesuffix(":8443").upper()).status_code == 200


def test_a_signed_host_is_for_one_port_until_one_moment(site: Site) -> None:
    host = site.signed()
    port, rest = host.split("-", 1)
    label, _, domain = rest.partition(".")
    *sandbox, moment, signature = label.split("-")
    later = f"{int(moment, 36) + 1:d}"
    for forged in (
        f"{int(port) % 65535 + 1}-{rest}",
        "-".join([port, *sandbox, moment, ("b" if signature[0] == "a" else "a") + signature[1:]]) + f".{domain}",
        "-".join([port, *sandbox, later[:7], signature]) + f".{domain}",
    ):
        answer = site.get(forged, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (401, "PREVIEW::INVALID_LINK")


def test_a_link_expires(site: Site) -> None:
    host = site.signed(seconds=2)
    deadline = time.monotonic() + 60
    while (answer := site.get(host)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (answer.status_code, answer.json()["code"]) == (401, "PREVIEW::LINK_EXPIRED")


@pytest.mark.parametrize("expires", ["-1", "0", "1700000000", str(36**7), str(2**64)])
def test_links_that_cannot_be(site: Site, expires: str) -> None:
    answer = site.endpoint(expires=expires)
    assert (answer.status_code, answer.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")


def test_links_hold_over_a_restart(site: Site) -> None:
    host = site.signed()
    site.server.kill()
    site.server.start()
    assert site.get(host).status_code == 200


def test_the_key_of_links_is_hidden_from_sandboxes_and_logs(site: Site) -> None:
    key = site.server.log.parent / "keys" / "preview-links"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().strip() not in site.server.log.read_text()


def test_paths_and_queries_travel_untouched(site: Site) -> None:
    host, connection = site.signed(), HTTPConnection("127.0.0.1", site.server.port, timeout=60)
    with closing(connection):
        for path in ("/", "/a%2Fb//c/?q=%20&r", "/sandboxes/x/proxy/80/", "/v1/sandboxes", "/health", "/a/../b"):
            connection.request("GET", path, headers={"Host": host})
            assert json.loads(connection.getresponse().read())["path"] == path


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_methods_travel(site: Site, method: str) -> None:
    answer = site.get(site.signed(), method=method)
    assert answer.status_code == 200
    assert method == "HEAD" or answer.json()["method"] == method


def test_the_applications_own_cookies_and_authorization_work(site: Site) -> None:
    seen = site.seen(site.signed(), Cookie="session=1; theme=dark", Authorization="Basic YTpi")
    assert (seen["cookie"], seen["authorization"]) == ("session=1; theme=dark", "Basic YTpi")
    assert site.get(site.signed()).headers.get_list("set-cookie") == ["one=1; Path=/", "two=2; Path=/"]


def test_under_a_path_they_stay_outside(site: Site) -> None:
    path = f"/v1/sandboxes/{site.id}/proxy/{site.port}/"
    answer = site.http.get(path, headers={**KEY, "Cookie": "session=1", "Authorization": "Basic YTpi"})
    seen = {name.lower() for name, _ in answer.json()["headers"]}
    assert not seen & {"cookie", "authorization", "open-sandbox-api-key"}


def test_the_application_sees_the_host_that_the_browser_sees(site: Site) -> None:
    host = site.signed()
    seen = site.seen(host, Origin=f"https://{host}")
    assert (seen["host"], seen["x-forwarded-host"], seen["origin"]) == (host, host, f"https://{host}")


def test_redirects_stay_on_the_host(site: Site) -> None:
    answer = site.get(site.signed(), "/away")
    assert (answer.status_code, answer.headers["location"]) == (302, "/login?next=%2Faway")


def test_the_server_adds_no_cors_to_another_origins_answers(site: Site) -> None:
    """Or any page could read, with the visitor's cookies, what the application shows its own."""
    preflight = {"Origin": "https://elsewhere.test", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = site.get(site.signed(), method=method, headers=preflight)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "access-control-allow-origin" in site.http.get("/health", headers=preflight).headers


def test_other_hosts_are_the_servers_own(site: Site) -> None:
    for host in ("preview.test", f"api.{DOMAIN}", f"{site.port}-{site.id}.elsewhere.test", f"0-{site.id}.{DOMAIN}"):
        answer = site.get(host, "/version")
        assert answer.json().keys() == {"version"}


def test_a_host_of_no_sandbox_is_not_found(site: Site) -> None:
    host = site.plain.replace(site.id, "00000000-0000-4000-8000-000000000000")
    answer = site.get(host, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (404, "LOCAL::SANDBOX_NOT_FOUND")


def test_clients_are_told_previews_only_when_configured(site: Site, open_site: Site) -> None:
    assert site.endpoint().json() == {"endpoint": f"127.0.0.1:{site.port}"}
    assert open_site.endpoint().json() == {"endpoint": open_site.plain}
    proxied = open_site.endpoint(use_server_proxy="true").json()["endpoint"]
    assert proxied.endswith(f"/v1/sandboxes/{open_site.id}/proxy/{open_site.port}")


def test_an_open_host_wants_no_key(open_site: Site) -> None:
    assert open_site.get(open_site.plain).status_code == 200
    assert open_site.http.get("/v1/sandboxes").status_code == 401
    assert open_site.get(f"api.{DOMAIN}", "/v1/sandboxes").status_code == 401


def test_an_access_token_is_wanted_on_open_hosts_and_not_on_signed_ones(secure_site: Site) -> None:
    told = secure_site.endpoint().json()
    assert told["endpoint"] == secure_site.plain
    refused = secure_site.get(secure_site.plain)
    assert (refused.status_code, refused.json()["code"]) == (401, "MISSING_OR_INVALID_SECURE_ACCESS")
    [name] = told["headers"]
    assert name.lower() not in secure_site.seen(secure_site.plain, **told["headers"])
    signed = secure_site.endpoint(expires=str(int(time.time()) + 600)).json()
    assert "headers" not in signed
    assert secure_site.get(signed["endpoint"]).status_code == 200


def test_the_access_log_names_the_sandbox(site: Site) -> None:
    before = len(site.server.log.read_text())
    host = site.signed()
    site.get(host, "/for-the-log")
    deadline = time.monotonic() + 30
    while "/for-the-log" not in site.server.log.read_text()[before:] and time.monotonic() < deadline:
        time.sleep(0.05)
    [line] = [line for line in site.server.log.read_text()[before:].splitlines() if "/for-the-log" in line]
    assert site.id in line
    assert host.split(".")[0] not in line
