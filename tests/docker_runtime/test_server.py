"""The Docker runtime in a real server, over HTTP: life, restarts, replacing opensandbox-server, an engine that goes."""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.docker_runtime.engines import DOCKER_HOST, EXECD, IMAGE
from tests.docker_runtime.relay import EngineRelay
from tests.support.bench import LONG, Bench
from tests.support.servers import SHOAL, ServerProcess

pytestmark = pytest.mark.needs("docker")

Serve = Callable[..., ServerProcess]
PATIENCE = 45.0


class Api:
    """Requests to one server; what it creates is told to the bench."""

    def __init__(self, server: ServerProcess, bench: Bench) -> None:
        self.http = httpx.Client(base_url=server.base + "/v1", timeout=60)
        self._bench = bench

    def create(self, **fields: Any) -> str:
        body = {"image": {"uri": IMAGE}, "entrypoint": LONG, "timeout": 3600, "resourceLimits": {}, **fields}
        answer = self.http.post("/sandboxes", json=body)
        assert answer.status_code == 202, answer.text
        sandbox_id = str(answer.json()["id"])
        self._bench.ids.add(sandbox_id)
        return sandbox_id

    def get(self, sandbox_id: str) -> Any:
        answer = self.http.get(f"/sandboxes/{sandbox_id}")
        return answer.json() if answer.status_code == 200 else {"status": {"state": answer.status_code}}

    def state(self, sandbox_id: str) -> Any:
        return self.get(sandbox_id)["status"]["state"]

    def until(self, sandbox_id: str, *states: object) -> Any:
        """The sandbox, once it is in one of the states (404 for gone)."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.get(sandbox_id))["status"]["state"] not in states:
            assert time.monotonic() < deadline, f"never {states}: {found}"
            time.sleep(0.05)
        return found


Connect = Callable[[ServerProcess], Api]


@pytest.fixture
def connect(bench: Bench) -> Iterator[Connect]:
    """``connect(server)``: requests to it; closed in the end."""
    with contextlib.ExitStack() as stack:

        def connected(server: ServerProcess) -> Api:
            made = Api(server, bench)
            stack.enter_context(made.http)
            return made

        yield connected


@pytest.fixture
def api(docker_server: Serve, connect: Connect) -> Api:
    return connect(docker_server())


def test_a_life_over_http(api: Api, bench: Bench) -> None:
    sandbox_id = api.create(metadata={"team": "red"}, env={"API_TOKEN": "sesame-sesame"})
    found = api.until(sandbox_id, "Running")
    assert found["status"]["reason"] == "CONTAINER_RUNNING"
    assert (found["entrypoint"], found["image"]["uri"]) == (LONG, IMAGE)
    ports = {key: bench.container(sandbox_id).labels[f"opensandbox.io/{key}"] for key in ("http-port",)}
    for port, wanted in ((44772, "/proxy/44772"), (18080, "/proxy/18080"), (8080, f":{ports['http-port']}")):
        endpoint = api.http.get(f"/sandboxes/{sandbox_id}/endpoints/{port}").json()["endpoint"]
        assert endpoint.endswith(wanted)
    assert api.http.post(f"/sandboxes/{sandbox_id}/pause").status_code == 202
    assert bench.container(sandbox_id).status == "paused"
    assert api.http.post(f"/sandboxes/{sandbox_id}/resume").status_code == 202
    summary = api.http.get(f"/sandboxes/{sandbox_id}/diagnostics/summary").text
    assert "API_TOKEN=***" in summary
    assert "sesame" not in summary
    assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    assert bench.left(sandbox_id) == []


def test_what_is_done_behind_its_back_shows(api: Api, bench: Bench) -> None:
    sandbox_id = api.create()
    api.until(sandbox_id, "Running")
    container = bench.container(sandbox_id)
    container.pause()
    api.until(sandbox_id, "Paused")
    container.unpause()
    api.until(sandbox_id, "Running")
    container.kill()
    assert "137" in api.until(sandbox_id, "Failed")["status"]["message"]
    container.remove()
    api.until(sandbox_id, 404)


def test_a_create_that_cannot_be_is_failed_with_the_engines_words(api: Api, bench: Bench) -> None:
    sandbox_id = api.create(image={"uri": f"127.0.0.1:1/no/such/image-{uuid.uuid4().hex}"})
    status = api.until(sandbox_id, "Failed")["status"]
    assert status["message"]
    assert bench.left(sandbox_id) == []
    assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204


def test_kill_9_in_the_middle_of_creates(docker_server: Serve, connect: Connect, bench: Bench) -> None:
    server = docker_server()
    api = connect(server)
    lived = api.create()
    api.until(lived, "Running")
    ids = [api.create() for _ in range(6)]
    time.sleep(0.4)
    server.kill()
    server.start()
    for sandbox_id in (lived, *ids):
        api.until(sandbox_id, "Running")
        assert len(bench.left(sandbox_id)) == 1
    for sandbox_id in (lived, *ids):
        assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
        assert bench.left(sandbox_id) == []


def test_opensandbox_server_is_replaced(docker_server: Serve, connect: Connect, bench: Bench) -> None:
    """Its containers are found, listed, renewed, expired and deleted; one that has ended is shown as it is."""
    now = datetime.now(UTC)

    def label(**delta: float) -> dict[str, str]:
        return {"opensandbox.io/expires-at": (now + timedelta(**delta)).isoformat(), "team": "old"}

    live, late, manual, ended = (bench.new_id() for _ in range(4))
    bench.run(live, label(hours=1))
    bench.run(late, label(seconds=-5))
    bench.run(manual, {"opensandbox.io/manual-cleanup": "true"})
    bench.run(ended, label(hours=1), command=["sh", "-c", "exit 3"]).wait()
    api = connect(docker_server())
    assert api.until(live, "Running")["metadata"] == {"team": "old"}
    api.until(late, 404)
    assert bench.left(late) == []
    assert "expiresAt" not in api.until(manual, "Running")
    assert "3" in api.until(ended, "Failed")["status"]["message"]
    listed = api.http.get("/sandboxes", params={"metadata": "team=old", "pageSize": 200}).json()["items"]
    assert {live, ended} <= {item["id"] for item in listed}
    later = (now + timedelta(hours=3)).isoformat()
    assert api.http.post(f"/sandboxes/{live}/renew-expiration", json={"expiresAt": later}).status_code == 200
    refused = api.http.post(f"/sandboxes/{manual}/renew-expiration", json={"expiresAt": later})
    assert (refused.status_code, refused.json()["code"]) == (409, "DOCKER::INVALID_EXPIRATION")
    for sandbox_id in (live, manual, ended):
        assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
        assert bench.left(sandbox_id) == []


def test_an_engine_that_goes_away_and_comes_back(
    docker_server: Serve, connect: Connect, bench: Bench, tmp_path: Path
) -> None:
    relay = EngineRelay(tmp_path / "engine.sock", DOCKER_HOST)
    relay.up()
    try:
        api = connect(docker_server(host=relay.host))
        lived, killed = api.create(), api.create()
        for sandbox_id in (lived, killed):
            api.until(sandbox_id, "Running")
        relay.down()
        _refused(api)
        assert api.state(lived) == "Running", "reads need no engine"
        gone = api.http.delete(f"/sandboxes/{lived}")
        assert gone.status_code == 503
        bench.container(killed).kill()
        relay.up()
        back = time.monotonic()
        assert api.until(killed, "Failed")
        assert time.monotonic() - back < 10
        api.until(lived, 404)
        fresh = api.create()
        api.until(fresh, "Running")
    finally:
        relay.down()


def _refused(api: Api) -> None:
    """Creates are refused as soon as the server has noticed; one that is accepted before waits for the engine."""
    deadline = time.monotonic() + PATIENCE
    while True:
        body = {"image": {"uri": IMAGE}, "entrypoint": LONG, "timeout": 3600, "resourceLimits": {}}
        answer = api.http.post("/sandboxes", json=body)
        if answer.status_code == 503:
            assert answer.json()["code"] == "DOCKER::ENGINE_UNAVAILABLE"
            return
        api._bench.ids.add(answer.json()["id"])
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_engine_at_start_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "shoal.toml"
    config.write_text(
        f'[server]\nhost = "127.0.0.1"\nport = 1\n[store]\npath = "{tmp_path}/s.db"\n[runtime]\ntype = "docker"\n'
        f'execd_image = "{EXECD}"\n[docker]\nhost = "unix://{tmp_path}/none.sock"\n'
    )
    done = subprocess.run([SHOAL, "serve", "--config", config], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "DOCKER::INITIALIZATION_ERROR" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


THEIR_FILE = """
[server]
host = "127.0.0.1"
port = 8080
[runtime]
type = "docker"
execd_image = "shoal-test/execd:latest"
execd_run_as_init = false
[docker]
network_mode = "Bridge"
api_timeout = 300
host_ip = "10.0.0.1"
drop_capabilities = ["NET_RAW"]
no_new_privileges = true
apparmor_profile = ""
seccomp_profile = ""
pids_limit = 512
port_range_min = 41000
port_range_max = 42000
publish_host = ""
sandbox_env = { HTTP_PROXY = "http://proxy:3128" }
sandbox_binds = ["/tmp:/host-tmp:ro"]
[storage]
allowed_host_paths = ["/srv"]
ossfs_mount_root = "/mnt/ossfs"
[ingress]
mode = "direct"
[egress]
image = "opensandbox/egress:v1.1.7"
mode = "dns+nft"
disable_ipv6 = true
readiness_timeout_seconds = 30
[secure_runtime]
type = ""
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("", None),
        ('type = ""=>type = "firecracker"', "secure_runtime"),
        ('type = ""=>type = "gvisor"', "docker_runtime"),
        ("port_range_max = 42000=>port_range_max = 41050", "port_range_max"),
        ('publish_host = ""=>publish_host = "::1"', "publish_host"),
        ('["NET_RAW"]=>["CAP_NET_RAW"]', "CAP_"),
        ("pids_limit = 512=>pids_limit = -1", "pids_limit"),
        ("pids_limit = 512=>pids_limit = 0", None),
        ("pids_limit = 512=>pids_limitt = 1", "pids_limit"),
        ("[ingress]=>[kubernetes]\nnamespace = 'x'\n[ingress]", None),
    ],
)
def test_a_file_of_opensandbox_server_is_read(tmp_path: Path, change: str, complaint: str | None) -> None:
    before, _, after = change.partition("=>")
    config = tmp_path / "sandbox.toml"
    config.write_text(THEIR_FILE.replace(before, after) if change else THEIR_FILE)
    done = subprocess.run([SHOAL, "check-config", "--config", config], capture_output=True, text=True, timeout=60)
    output = done.stdout + done.stderr
    assert (done.returncode == 0) is (complaint is None), output
    assert complaint is None or complaint in output
