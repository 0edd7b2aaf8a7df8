"""What the SDK does not do, against the real server: idempotency, long polls, the proxy, limits, refusals to start."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.key import KEY
from tests.support.servers import SHOAL, ServerProcess, free_port

CREATE: dict[str, Any] = {
    "image": {"uri": "host"},
    "entrypoint": ["sleep", "600"],
    "resourceLimits": {},
    "timeout": 600,
}
ECHO = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Path", self.path)
        self.send_header("X-Key", self.headers.get("OPEN-SANDBOX-API-KEY", "none"))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def sandbox(http: httpx.Client) -> Iterator[str]:
    made = http.post("/v1/sandboxes", json=CREATE).json()["id"]
    yield made
    http.delete(f"/v1/sandboxes/{made}")


def test_the_same_key_and_body_make_one_sandbox(http: httpx.Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/sandboxes", json=CREATE, headers=key), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    (made,) = {answer.json()["id"] for answer in answers}
    other = http.post("/v1/sandboxes", json={**CREATE, "timeout": 601}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "SANDBOX::IDEMPOTENCY_KEY_REUSED")
    assert http.delete(f"/v1/sandboxes/{made}").status_code == 204


def test_a_key_survives_kill_9(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    key = {"Idempotency-Key": "once"}
    made = httpx.post(f"{server.base}/v1/sandboxes", json=CREATE, headers=key).json()["id"]
    server.kill()
    server.start()
    assert httpx.post(f"{server.base}/v1/sandboxes", json=CREATE, headers=key).json()["id"] == made
    assert httpx.delete(f"{server.base}/v1/sandboxes/{made}").status_code == 204
    assert server.stop() == 0


def test_a_long_poll_ends_with_the_state(http: httpx.Client, sandbox: str) -> None:
    seen = http.get(f"/v1/sandboxes/{sandbox}", params={"wait": "Running", "timeout": 30}).json()
    assert seen["status"]["state"] == "Running"
    begun = time.monotonic()
    still = http.get(f"/v1/sandboxes/{sandbox}", params={"wait": "Paused", "timeout": 0.2}).json()
    assert still["status"]["state"] == "Running"
    assert time.monotonic() - begun >= 0.2


def test_a_read_right_after_a_create_sees_it_run(http: httpx.Client) -> None:
    """Go's SDK sleeps two seconds where it reads Pending."""
    made = http.post("/v1/sandboxes", json=CREATE).json()
    assert made["status"]["state"] == "Pending"
    assert http.get(f"/v1/sandboxes/{made['id']}").json()["status"]["state"] == "Running"
    assert http.delete(f"/v1/sandboxes/{made['id']}").status_code == 204


def test_one_word_with_a_space_is_a_command_line(http: httpx.Client) -> None:
    made = http.post("/v1/sandboxes", json={**CREATE, "entrypoint": ["sh -c 'echo a  b; sleep 600'"]}).json()["id"]
    seen = http.get(f"/v1/sandboxes/{made}", params={"wait": "Running", "timeout": 30}).json()
    assert (seen["status"]["state"], seen["entrypoint"]) == ("Running", ["sh -c 'echo a  b; sleep 600'"])
    deadline = time.monotonic() + 30
    while "a b" not in (said := http.get(f"/v1/sandboxes/{made}/diagnostics/logs?container=any").text):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    assert http.delete(f"/v1/sandboxes/{made}").status_code == 204


def test_the_local_runtime_has_no_gpus(http: httpx.Client) -> None:
    for field in ("resourceLimits", "resourceRequests"):
        refused = http.post("/v1/sandboxes", json={**CREATE, field: {"gpu": "1"}})
        assert (refused.status_code, refused.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
        assert "gpu" in refused.json()["message"]


def test_a_command_that_does_not_exist_ends_as_failed_and_says_so_also_after_kill_9(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    api = f"{server.base}/v1/sandboxes"
    made = httpx.post(api, json={**CREATE, "entrypoint": ["/no/such/command"]}).json()["id"]
    seen = httpx.get(f"{api}/{made}", params={"wait": "Running", "timeout": 30}, timeout=40).json()
    assert seen["status"]["state"] == "Failed"
    assert "/no/such/command" in seen["status"]["message"]
    server.kill()
    server.start()
    endpoint = httpx.get(f"{server.base}/v1/sandboxes/{made}/endpoints/80")
    assert (endpoint.status_code, endpoint.json()["code"]) == (500, "LOCAL::SANDBOX_START_FAILED")
    assert "/no/such/command" in endpoint.json()["message"]
    assert httpx.delete(f"{server.base}/v1/sandboxes/{made}").status_code == 204
    assert server.stop() == 0


def test_the_proxy_carries_a_request_but_not_the_key(http: httpx.Client, server: ServerProcess) -> None:
    port = free_port()
    body = {**CREATE, "entrypoint": ["/usr/bin/env", "python3", "-c", ECHO, str(port)]}
    made = http.post("/v1/sandboxes", json=body).json()["id"]
    told = http.get(f"/v1/sandboxes/{made}/endpoints/{port}", params={"use_server_proxy": "true"}).json()
    assert told["endpoint"] == f"127.0.0.1:{server.port}/v1/sandboxes/{made}/proxy/{port}"
    url = f"http://{told['endpoint']}/a%2Fb//c?d=%20"
    deadline = time.monotonic() + 20
    while (answer := http.post(url, content=b"\0payload")).status_code == 502 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (answer.status_code, answer.content) == (200, b"\0payload")
    assert answer.headers["x-path"] == "/a%2Fb//c?d=%20"
    assert answer.headers["x-key"] == "none"
    # As in opensandbox-server, a single key does not guard the proxy.
    assert httpx.post(url, content=b"").status_code == 200
    assert httpx.get(url.partition("/proxy/")[0]).status_code == 401
    http.delete(f"/v1/sandboxes/{made}")


def test_a_body_over_the_limit(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/sandboxes", content=b" " * (8 * 1024 * 1024 + 1), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "GENERAL::BODY_TOO_LARGE")


def refused(config: str, home: Path) -> str:
    """What ``shoal serve`` says when it does not start."""
    file = home / "refused.toml"
    file.write_text(config)
    done = subprocess.run([SHOAL, "serve", "--config", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_no_open_start_on_a_network(tmp_path: Path) -> None:
    told = refused(f'[server]\nhost = "0.0.0.0"\nport = {free_port()}\n[store]\npath = "{tmp_path}/x.db"\n', tmp_path)
    assert "OPENSANDBOX_INSECURE_SERVER" in told
    assert not (tmp_path / "x.db").exists()


def test_a_port_that_is_taken(server: ServerProcess, tmp_path: Path) -> None:
    config = f'[server]\nhost = "127.0.0.1"\nport = {server.port}\n[store]\npath = "{tmp_path}/x.db"\n'
    assert f"cannot listen on 127.0.0.1:{server.port}" in refused(config, tmp_path)


def test_a_store_that_is_in_use(tmp_path: Path) -> None:
    first = ServerProcess(tmp_path)
    first.start()
    config = f'[server]\nhost = "127.0.0.1"\nport = {free_port()}\n[store]\npath = "{tmp_path}/shoal.db"\n'
    assert "shoal.db" in refused(config, tmp_path)
    assert first.stop() == 0


def test_the_key_is_never_logged(server: ServerProcess) -> None:
    assert KEY not in server.log.read_text()
