"""Network policies on a real cluster: a sidecar in the sandbox's pod, read and changed through the server."""

# ruff: noqa: ASYNC212 - the server is another process

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from tests.egress_policy.image import BASE, dockerfile
from tests.k8s_runtime.servers import configuration
from tests.support.bench import Bench
from tests.support.servers import ServerProcess

from shoal_k8s.api import KubeClient
from shoal_k8s.pods.objects import PODS

pytestmark = [
    pytest.mark.needs("k8s"),
    pytest.mark.needs("docker"),
    pytest.mark.needs("debian"),
    pytest.mark.timeout(300),
]

IMAGE = "shoal-test/busybox:latest"
POLICY = {"defaultAction": "deny", "egress": [{"action": "allow", "target": "*.example.com"}]}
OTHER = {"defaultAction": "allow", "egress": []}
TOKEN = "opensandbox.io/egress-auth-token"


@pytest.fixture
def egress_image() -> Iterator[str]:
    """On the test bed's only node; its cluster runs on that Docker."""
    bench = Bench(docker.from_env())
    try:
        yield bench.image(dockerfile(), BASE)
    finally:
        bench.clear()
        bench.client.close()


@pytest.fixture
def server(tmp_path: Path, namespace: str, egress_image: str) -> Iterator[ServerProcess]:
    # disable_ipv6 needs a privileged init container, which a node inside a container cannot have: test_pod_spec has it
    egress = f"""
[egress]
image = "{egress_image}"
disable_ipv6 = false
limits = {{ cpu = "1", memory = "64Mi" }}
requests = {{ cpu = "10m", memory = "16Mi" }}
"""
    server = ServerProcess(tmp_path, configuration(namespace, execd=True, extra=egress))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base + "/v1", timeout=60) as client:
        yield client
        for sandbox in client.get("/sandboxes").json()["items"]:
            client.delete(f"/sandboxes/{sandbox['id']}")


def running(api: httpx.Client, **changes: Any) -> str:
    body = {"image": {"uri": IMAGE}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600, **changes}
    made = api.post("/sandboxes", json=body)
    assert made.status_code == 202, made.text
    sandbox_id: str = made.json()["id"]
    found = api.get(f"/sandboxes/{sandbox_id}", params={"wait": "Running", "timeout": 50}).json()
    assert found["status"]["state"] == "Running", found["status"]["message"]
    return sandbox_id


async def test_a_policy_is_kept_by_a_sidecar_of_the_pod(
    server: ServerProcess, api: httpx.Client, client: KubeClient, namespace: str
) -> None:
    sandbox_id = running(api, networkPolicy=POLICY, env={"OPENSANDBOX_EGRESS_LOG_LEVEL": "debug", "A": "1"})
    policy = f"/sandboxes/{sandbox_id}/networkpolicy"
    pod = await client.get(PODS, namespace, sandbox_id, dict[str, Any])
    main, sidecar = pod["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in sidecar["env"]}
    assert json.loads(told["OPENSANDBOX_EGRESS_RULES"]) == POLICY
    assert told["OPENSANDBOX_EGRESS_LOG_LEVEL"] == "debug"
    assert not [entry for entry in main["env"] if entry["name"].startswith("OPENSANDBOX_EGRESS_")]
    assert main["securityContext"]["capabilities"] == {"drop": ["NET_ADMIN"]}
    assert sidecar["securityContext"]["capabilities"] == {"add": ["NET_ADMIN"]}
    assert sidecar["resources"]["requests"] == {"cpu": "10m", "memory": "16Mi"}
    assert api.get(policy).json()["policy"] == POLICY
    assert api.put(policy, json=OTHER).json()["mode"] == "allow_all"
    token = pod["metadata"]["annotations"][TOKEN]
    assert token not in api.get(f"/sandboxes/{sandbox_id}/diagnostics/inspect").text
    assert token not in json.dumps(api.get(f"/sandboxes/{sandbox_id}").json())
    server.kill()
    server.start()
    assert api.get(policy).json()["policy"] == OTHER
    endpoint = api.get(f"/sandboxes/{sandbox_id}/endpoints/18080").json()
    assert endpoint["headers"] == {"OPENSANDBOX-EGRESS-AUTH": token}
    direct = f"http://{endpoint['endpoint']}/policy"
    assert api.get(direct).status_code == 401
    assert api.get(direct, headers=endpoint["headers"]).json()["policy"] == OTHER
