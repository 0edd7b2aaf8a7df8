"""``/docs`` and ``/redoc`` in a real browser: all from this server, also below a path, and a request from the page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from tests.contract.key import KEY
from tests.support.browser import Page, chromium
from tests.support.servers import ServerProcess
from websockets.sync.client import ClientConnection

from shoal.web.resources.pages import FILES

PREFIX = "/tools/sandboxes"
NAMES = "performance.getEntriesByType('resource').map(entry => entry.name)"


class _Mounted(BaseHTTPRequestHandler):
    """A reverse proxy that knows the server below `PREFIX` alone."""

    base: str

    def do_GET(self) -> None:
        if not self.path.startswith(f"{PREFIX}/"):
            self.send_error(404)
            return
        key = self.headers.get("OPEN-SANDBOX-API-KEY")
        answer = httpx.get(
            self.base + self.path.removeprefix(PREFIX), headers={"OPEN-SANDBOX-API-KEY": key} if key else {}
        )
        self.send_response(answer.status_code)
        for name in ("content-type", "content-security-policy", "x-content-type-options"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[ClientConnection]:
    with chromium() as connection:
        yield connection


@pytest.fixture(scope="module", params=["", PREFIX])
def site(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[str]:
    """Where a browser finds the server: at its own address, and behind a reverse proxy at a path."""
    if not request.param:
        yield server.base
        return
    handler = type("Handler", (_Mounted,), {"base": server.base})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{PREFIX}"
        proxy.shutdown()


@pytest.mark.parametrize("path", FILES)
def test_every_file_needs_no_key_and_names_no_other_server(server: ServerProcess, path: str) -> None:
    answer = httpx.get(server.base + path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, FILES[path][0])
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "cdn." not in answer.text


def test_nothing_beside_them_is_open(server: ServerProcess) -> None:
    for path in ("/docs/other.js", "/docsx", "/redoc/../v1/sandboxes", "/docs/..%2fv1/sandboxes"):
        assert httpx.get(server.base + path).status_code == 401


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("docs", "document.querySelectorAll('.opblock').length > 20"),
        ("redoc", "document.querySelector('h1')?.innerText"),
    ],
)
def test_a_page_shows_the_api_with_files_of_this_server_alone(
    browser: ClientConnection, site: str, path: str, shown: str
) -> None:
    page = Page(browser)
    page.open(f"{site}/{path}")
    assert page.until(shown)
    loaded = page.evaluate(NAMES)
    assert f"{site}/openapi.json" in loaded
    assert [name for name in loaded if not name.startswith((f"{site}/", "data:", "blob:"))] == []
    assert page.failures == []


@pytest.mark.needs("chromium")
def test_a_request_from_the_page_carries_the_key(browser: ClientConnection, site: str) -> None:
    page = Page(browser)
    page.open(f"{site}/docs")
    press(page, ".auth-wrapper .authorize")
    page.until("!!document.querySelector('.modal-ux input')")
    page.evaluate(TYPE.format(KEY))
    press(page, ".modal-ux .authorize")
    press(page, ".modal-ux .btn-done")
    for button in (".opblock-summary-control", ".try-out__btn", ".execute"):
        press(page, f"{OPERATION} {button}")
    answered = page.until(f"document.querySelector('{OPERATION} .live-responses-table tbody')?.innerText")
    assert answered.split()[0] == "200"
    asked = page.evaluate(f"document.querySelector('{OPERATION} .request-url pre').innerText")
    assert asked.startswith(f"{site}/v1/sandboxes")
    assert page.failures == []


OPERATION = "[id$=-listSandboxesV1]"
TYPE = """(() => {{
  const input = document.querySelector(".modal-ux input");
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, "{}");
  input.dispatchEvent(new Event("input", {{ bubbles: true }}));
}})()"""
"""As a person types: React hears nothing of a value that a script sets."""


def press(page: Page, button: str) -> None:
    """Click it once it is there."""
    page.until(f"!!document.querySelector('{button}')")
    page.evaluate(f"document.querySelector('{button}').click()")
