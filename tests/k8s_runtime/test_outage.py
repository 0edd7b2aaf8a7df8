"""An API server that is killed and comes back: answers meanwhile are true or a clear 503, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from kubernetes import client, config
from tests.k8s_runtime.servers import configuration, running
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]

BODY = {
    "image": {"uri": "shoal-test/busybox:latest"},
    "entrypoint": ["sleep", "600"],
    "resourceLimits": {},
    "timeout": 600,
}


class ApiServer:
    """The API server's process, if it is one of this machine: killed, and started again as it was."""

    def __init__(self, pid: int) -> None:
        process = Path("/proc", str(pid))
        self._pid = pid
        self._command = process.joinpath("cmdline").read_text().rstrip("\0").split("\0")
        self._environment = dict(
            entry.split("=", 1) for entry in process.joinpath("environ").read_text().rstrip("\0").split("\0")
        )
        self._directory = process.joinpath("cwd").readlink()
        self._output = process.joinpath("fd/1").resolve()
        self._url = _url()

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        eventually(lambda: not self._answers())

    def start(self) -> None:
        """Start it, and return once it is ready."""
        with self._output.open("ab") as log:
            command = ["setsid", "--fork", *self._command]  # it outlives the test
            subprocess.run(command, env=self._environment, cwd=self._directory, stdout=log, stderr=log, check=True)
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return httpx.get(self._url + "/readyz", verify=False, timeout=2).status_code in (200, 401, 403)  # noqa: S501 - liveness
        except httpx.TransportError:
            return False


def _url() -> str:
    config.load_kube_config()  # type: ignore[no-untyped-call]  # it has no types
    return str(client.Configuration.get_default_copy().host).rstrip("/")


def _process_behind(url: str) -> int | None:
    """The process that listens at a loopback URL; None where it is not this machine's, or not ours to kill."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost") or os.geteuid() != 0:
        return None
    for process in Path("/proc").iterdir():
        try:
            command = process.joinpath("cmdline").read_text().split("\0")
            elsewhere = process.joinpath("ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        except OSError:
            continue
        if elsewhere:
            continue  # another network has an address of its own under that name
        if command[0].endswith("kube-apiserver") and f"--secure-port={parts.port}" in command:
            return int(process.name)
    return None


@pytest.fixture
def api_server() -> ApiServer:
    pid = _process_behind(_url())
    if pid is None:
        pytest.skip("the API server is not a process of this machine that may be killed")
    return ApiServer(pid)


@pytest.fixture
def server(tmp_path: Path, namespace: str) -> Iterator[ServerProcess]:
    with running(tmp_path, configuration(namespace)) as server:
        yield server


def test_killed_and_restarted(server: ServerProcess, api_server: ApiServer) -> None:
    with httpx.Client(base_url=server.base + "/v1", timeout=60) as api:
        kept, dropped, over = (_running(api) for _ in range(3))
        end = datetime.now(UTC) + timedelta(seconds=8)
        assert api.post(f"/sandboxes/{over}/renew-expiration", json={"expiresAt": end.isoformat()}).status_code == 200
        api_server.kill()
        try:
            assert api.get(f"/sandboxes/{kept}").json()["status"]["state"] == "Running"
            assert api.get("/sandboxes").json()["pagination"]["totalItems"] == 3
            eventually(lambda: _refused(api.post("/sandboxes", json=BODY)))
            later = {"expiresAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
            assert _refused(api.post(f"/sandboxes/{kept}/renew-expiration", json=later))
            assert _refused(api.patch(f"/sandboxes/{kept}/metadata", json={"a": "b"}))
            assert _refused(api.delete(f"/sandboxes/{dropped}"))
            assert httpx.get(server.base + "/health").status_code == 200
            assert httpx.get(server.base + "/ready").status_code == 503
        finally:
            api_server.start()
        eventually(lambda: api.get(f"/sandboxes/{dropped}").status_code == 404)
        eventually(lambda: api.get(f"/sandboxes/{over}").status_code == 404)
        assert datetime.now(UTC) >= end
        eventually(lambda: api.post(f"/sandboxes/{kept}/renew-expiration", json=later).status_code == 200)
        found = api.get(f"/sandboxes/{kept}").json()
        assert (found["status"]["state"], "metadata" in found) == ("Running", False)
        eventually(lambda: httpx.get(server.base + "/ready").status_code == 200)
        assert api.delete(f"/sandboxes/{_running(api)}").status_code == 204


def _running(api: httpx.Client) -> str:
    answers: list[httpx.Response] = []

    def accepted() -> bool:
        answers.append(api.post("/sandboxes", json=BODY))
        return answers[-1].status_code == 202

    eventually(accepted)
    sandbox_id: str = answers[-1].json()["id"]
    found: dict[str, Any] = api.get(f"/sandboxes/{sandbox_id}?wait=Running&timeout=60").json()
    assert found["status"]["state"] == "Running"
    return sandbox_id


def _refused(answer: httpx.Response) -> bool:
    """Whether it is the clear 503; True and False alone would not say why not."""
    if answer.status_code == 202:
        return False
    assert (answer.status_code, answer.json()["code"]) == (503, "KUBERNETES::API_ERROR"), answer.text
    assert "API server" in answer.json()["message"]
    assert int(answer.headers["Retry-After"]) >= 1
    return True
