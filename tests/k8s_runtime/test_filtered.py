"""A sandbox with a policy on a real cluster: nothing of it runs before its filter, after it, or without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import httpx
import pytest
from docker.models.containers import Container
from tests.egress_policy.image import BASE, KINDS, dockerfile, real_image
from tests.k8s_runtime.batch_controller import BatchController
from tests.k8s_runtime.servers import configuration, running
from tests.k8s_runtime.threads import in_thread
from tests.support.bench import Bench
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.needs("k8s"),
    pytest.mark.needs("docker"),
    pytest.mark.needs("debian"),
    pytest.mark.timeout(300),
]

DENY = {"defaultAction": "deny", "egress": []}
KNOCK = "trap '' TERM; while :; do wget -q -T 2 -O- http://{address}:8000/ & sleep 0.1; done"
"""Ignores that it is asked to end."""


class Target:
    """A container that counts who reaches it."""

    def __init__(self, bench: Bench) -> None:
        command = ["python3", "-u", "-m", "http.server", "8000"]
        self._container: Container = bench.client.containers.run(BASE, command, detach=True)
        self._container.reload()
        self.address: str = self._container.attrs["NetworkSettings"]["IPAddress"]

    def reached(self) -> int:
        return self._container.logs().count(b"GET ")

    def remove(self) -> None:
        self._container.remove(force=True)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(docker.from_env())
    yield bench
    bench.clear()
    bench.client.close()


@pytest.fixture
def target(bench: Bench) -> Iterator[Target]:
    target = Target(bench)
    yield target
    target.remove()


@pytest.fixture(params=["pod", "batchsandbox"])
def provider(request: pytest.FixtureRequest, namespace: str) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "batchsandbox":
            stack.enter_context(in_thread(lambda client: [BatchController(client, namespace)]))
        yield request.param


@pytest.fixture(params=KINDS)
def api(
    request: pytest.FixtureRequest, provider: str, bench: Bench, tmp_path: Path, namespace: str
) -> Iterator[httpx.Client]:
    image = real_image() if request.param == "real" else bench.image(dockerfile(linger=1), BASE)
    egress = f'[egress]\nimage = "{image}"\nmode = "dns+nft"\ndisable_ipv6 = false\n'
    config = configuration(namespace, provider, execd=True, extra=egress)
    with (
        running(tmp_path, config) as server,
        httpx.Client(base_url=server.base + "/v1", timeout=60) as api,
    ):
        yield api
        for sandbox in api.get("/sandboxes").json()["items"]:
            api.delete(f"/sandboxes/{sandbox['id']}")


def knocking(api: httpx.Client, target: Target) -> str:
    body = {
        "image": {"uri": "shoal-test/busybox:latest"},
        "entrypoint": ["sh", "-c", KNOCK.format(address=target.address)],
        "resourceLimits": {},
        "timeout": 600,
        "networkPolicy": DENY,
    }
    made = api.post("/sandboxes", json=body)
    assert made.status_code == 202, made.text
    path = f"/sandboxes/{made.json()['id']}"
    found = api.get(path, params={"wait": "Running", "timeout": 50}).json()
    assert found["status"]["state"] == "Running", found["status"]
    assert found["entrypoint"] == body["entrypoint"]
    return path


def alive(bench: Bench, path: str, name: str) -> list[Container]:
    ours = {"label": f"io.kubernetes.container.name={name}"}
    found: list[Container] = bench.client.containers.list(filters=ours)
    return [each for each in found if path.rpartition("/")[2] in str(each.name)]


def test_nothing_gets_out_from_the_first_instruction_to_the_last(
    api: httpx.Client, target: Target, bench: Bench
) -> None:
    path = knocking(api, target)
    assert len(alive(bench, path, "sandbox")) == 1
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    eventually(lambda: not alive(bench, path, "sandbox") and not alive(bench, path, "egress"))
    assert target.reached() == 0


def test_a_sandbox_ends_with_its_filter_whatever_its_exit_code(api: httpx.Client, target: Target, bench: Bench) -> None:
    path = knocking(api, target)
    (sidecar,) = alive(bench, path, "egress")
    assert target.reached() == 0
    sidecar.stop(timeout=20)
    assert sidecar.wait()["StatusCode"] == 0
    eventually(lambda: api.get(path).json()["status"]["state"] == "Failed")
    status = api.get(path).json()["status"]
    assert (status["reason"], "'egress' ended with exit code 0" in status["message"]) == ("SIDECAR_FAILED", True)
    eventually(lambda: not alive(bench, path, "sandbox"))
    assert not alive(bench, path, "egress")
    assert api.get(path).json()["status"]["state"] == "Failed"
