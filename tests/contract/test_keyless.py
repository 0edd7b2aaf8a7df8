"""What a web page can do to a real server without a key: nothing."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.support.servers import ServerProcess
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

CREATE = b'{"image":{"uri":"host"},"entrypoint":["sleep","60"],"timeout":60,"resourceLimits":{}}'


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("keyless"), env={"OPENSANDBOX_SERVER_API_KEY": ""})
    server.start()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_no_page_of_another_origin_creates_a_sandbox(keyless: ServerProcess, kind: str) -> None:
    page = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": kind}
    assert httpx.post(f"{keyless.base}/v1/sandboxes", content=CREATE, headers=page).status_code == 403
    assert httpx.get(f"{keyless.base}/v1/sandboxes").json()["items"] == []


def test_no_page_of_another_origin_opens_a_websocket(keyless: ServerProcess) -> None:
    url = f"ws://127.0.0.1:{keyless.port}/v1/sandboxes/x/proxy/80/"
    with (
        connect(url, origin=Origin("http://evil.example"), proxy=None) as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, "other origins" in closed.value.rcvd.reason) == (1008, True)


def test_no_name_of_another_leads_to_it(keyless: ServerProcess) -> None:
    assert httpx.get(f"{keyless.base}/v1/sandboxes", headers={"Host": "evil.example"}).status_code == 403


def test_two_keys_are_refused(server: ServerProcess) -> None:
    for keys in (["wrong", "contract-test-key-0123456789"], ["contract-test-key-0123456789"] * 2):
        headers = [("OPEN-SANDBOX-API-KEY", key) for key in keys]
        answer = httpx.get(f"{server.base}/v1/sandboxes", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "AMBIGUOUS_CREDENTIAL")
