"""A real web application in a sandbox, opened in a real browser: on a preview host, and under the proxy's path."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.browser import Page, chromium
from tests.support.servers import ServerProcess, free_port
from websockets.sync.client import ClientConnection

KEY = {"OPEN-SANDBOX-API-KEY": "browser-test-key-0123456789"}
APPLICATION = Path(__file__).with_name("webapp.py").read_text()
USER = b"Ann & Bob".hex()

pytestmark = pytest.mark.needs("chromium")


class Site:
    """A server with preview hosts, whose proxy path a browser may use, too."""

    def __init__(self, home: Path) -> None:
        self.server = ServerProcess(
            home,
            '[runtime]\ntype = "local"\n[apikey_auth]\nopen_proxy = true\n'
            '[ingress.preview]\ndomain = "preview.localhost"\n',
            env={"OPENSANDBOX_SERVER_API_KEY": KEY["OPEN-SANDBOX-API-KEY"]},
        )
        self.http = httpx.Client(base_url=self.server.base, headers=KEY, timeout=60, trust_env=False)

    def run(self, base: str) -> tuple[str, int]:
        """The id and the port of the application, once it answers; its links begin with ``base``."""
        port = free_port()
        body = {
            "image": {"uri": "host"},
            "entrypoint": ["python3", "-c", APPLICATION, str(port), base],
            "resourceLimits": {},
            "timeout": 600,
        }
        answer = self.http.post("/v1/sandboxes", json=body)
        assert answer.status_code == 202, answer.text
        sandbox_id = answer.json()["id"]
        deadline = time.monotonic() + 60
        path = f"/v1/sandboxes/{sandbox_id}/proxy/{port}/"
        while self.http.get(path).status_code == 502 and time.monotonic() < deadline:
            time.sleep(0.05)  # Python takes a moment to listen
        return sandbox_id, port

    def link(self, sandbox_id: str, port: int) -> str:
        """A signed one; browsers know that names below ``localhost`` are this machine."""
        expires = int(time.time()) + 600
        answer = self.http.get(f"/v1/sandboxes/{sandbox_id}/endpoints/{port}?expires={expires}")
        return f"http://{answer.json()['endpoint']}:{self.server.port}/"

    def close(self) -> None:
        for item in self.http.get("/v1/sandboxes?pageSize=200").json()["items"]:
            self.http.delete(f"/v1/sandboxes/{item['id']}")
        self.http.close()
        assert self.server.stop() == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("browser"))
    site.server.start()
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[ClientConnection]:
    with chromium() as connection:
        yield connection


@pytest.fixture(scope="module")
def preview(site: Site) -> str:
    """A signed link to an application that knows nothing of paths."""
    return site.link(*site.run("/"))


@pytest.fixture(scope="module")
def path(site: Site) -> str:
    """The proxy's path to an application that was written for one."""
    sandbox_id, port = site.run("./")
    return f"{site.server.base}/v1/sandboxes/{sandbox_id}/proxy/{port}/"


@pytest.fixture(params=["preview", "path"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def opened(browser: ClientConnection, url: str) -> Page:
    page = Page(browser)
    page.open(url)
    page.until("document.readyState == 'complete' && typeof results == 'object'")
    return page


def test_a_page_with_its_assets_and_requests(browser: ClientConnection, url: str) -> None:
    page = opened(browser, url)
    assert page.evaluate("results.style") == "rgb(1, 2, 3)"
    assert page.evaluate("results.image") == 1
    assert page.evaluate("results.json") == {"got": {"n": 7}}
    assert page.evaluate("document.getElementById('head').textContent") == "Hello"


def test_an_event_stream_arrives_as_it_is_sent(browser: ClientConnection, url: str) -> None:
    assert opened(browser, url).evaluate("results.events") == ["event 0", "event 1", "event 2"]


def test_a_websocket_with_a_subprotocol_and_a_close(browser: ClientConnection, url: str) -> None:
    page = opened(browser, url)
    assert page.evaluate("socket()") == {
        "protocol": "chat.v2",
        "seen": ["text \u2713", 70000],
        "code": 4001,
        "reason": "enough",
    }
    assert not page.failures


def test_a_log_in_on_a_preview_host(browser: ClientConnection, preview: str) -> None:
    page = opened(browser, preview)
    page.evaluate("document.querySelector('#login button').click()")
    told = page.until("location.pathname == '/welcome' && document.body && document.body.innerText")
    host = preview.removeprefix("http://").rstrip("/")
    assert told == f"user={USER}; theme=dark at {host}"
    assert page.evaluate("document.cookie") == "theme=dark"
    assert not page.failures


def test_a_form_under_a_path_is_led_back_under_it(browser: ClientConnection, path: str) -> None:
    """Where cookies stay outside: they would be those of every sandbox, and of the API."""
    page = opened(browser, path)
    page.evaluate("document.querySelector('#login button').click()")
    told = page.until("location.pathname.endsWith('/welcome') && document.body && document.body.innerText")
    assert page.evaluate("location.href") == f"{path}welcome"
    assert told.startswith("no cookie at 127.0.0.1:")
    assert not page.failures


def test_each_link_is_an_origin_of_its_own(site: Site, browser: ClientConnection, preview: str) -> None:
    """What one application sets, another does not see."""
    page = opened(browser, preview)
    page.evaluate("document.cookie = 'mine=1'; localStorage.setItem('mine', '1')")
    page = opened(browser, site.link(*site.run("/")))
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("localStorage.getItem('mine')") is None
