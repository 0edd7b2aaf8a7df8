"""Policies and sidecars on a real engine: by the API alone, as clients use it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opensandbox import SandboxSync
from opensandbox.config import ConnectionConfigSync
from opensandbox.models.sandboxes import NetworkPolicy, NetworkRule
from tests.egress_policy.parts import Parts, Serve
from tests.egress_policy.test_sidecar import VAULT
from tests.support.bench import Bench
from tests.support.servers import ServerProcess

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(180)]

IMAGE, LONG = "shoal-test/busybox:latest", ["sleep", "600"]
POLICY: dict[str, Any] = {"defaultAction": "deny", "egress": [{"action": "allow", "target": "*.example.com"}]}
AUTH = "OPENSANDBOX-EGRESS-AUTH"


class Api:
    """Requests to one server."""

    def __init__(self, server: ServerProcess, bench: Bench) -> None:
        self.http = httpx.Client(base_url=server.base + "/v1", timeout=60)
        self._bench = bench

    def create(self, **fields: Any) -> httpx.Response:
        body = {"image": {"uri": IMAGE}, "entrypoint": LONG, "resourceLimits": {}, "timeout": 600, **fields}
        answer = self.http.post("/sandboxes", json=body)
        if answer.status_code == 202:
            self._bench.ids.add(answer.json()["id"])
        return answer

    def running(self, **fields: Any) -> str:
        """The id of a new sandbox, once it runs and its execd answers, as a client waits for it."""
        answer = self.create(**fields)
        assert answer.status_code == 202, answer.text
        sandbox_id: str = answer.json()["id"]
        self.reaches(sandbox_id, "Running")
        self.await_execd(sandbox_id)
        return sandbox_id

    def await_execd(self, sandbox_id: str) -> None:
        """Return once it answers; the test's own time limit is the bound.

        A request that meets a container in the middle of its restart may wait for an answer that does not come.
        """
        while True:
            with contextlib.suppress(httpx.TimeoutException):
                if self.http.get(f"/sandboxes/{sandbox_id}/proxy/44772/ping", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)

    def reaches(self, sandbox_id: str, state: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/sandboxes/{sandbox_id}?wait={state}&timeout=50").json()
        assert found["status"]["state"] == state, found
        return found

    def policy(self, sandbox_id: str, method: str = "GET", body: Any = None, **headers: str) -> httpx.Response:
        return self.http.request(method, f"/sandboxes/{sandbox_id}/networkpolicy", json=body, headers=headers)


@pytest.fixture
def api(server: ServerProcess, bench: Bench) -> Iterator[Api]:
    made = Api(server, bench)
    with made.http:
        yield made


def environment(container: Any) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in container.attrs["Config"]["Env"])


def test_a_policy_brings_a_sidecar_that_keeps_it(api: Api, bench: Bench) -> None:
    sandbox_id = api.running(networkPolicy=POLICY, env={"OPENSANDBOX_EGRESS_LOG_LEVEL": "debug", "A": "1"})
    sandbox, sidecar = bench.container(sandbox_id), bench.container(sandbox_id, "egress")
    assert sandbox.attrs["HostConfig"]["NetworkMode"] == f"container:{sidecar.id}"
    assert sidecar.attrs["HostConfig"]["CapAdd"] in (["NET_ADMIN"], ["CAP_NET_ADMIN"])
    assert "NET_ADMIN" in " ".join(sandbox.attrs["HostConfig"]["CapDrop"])
    assert not [name for name in environment(sandbox) if name.startswith("OPENSANDBOX_EGRESS_")]
    told = environment(sidecar)
    assert json.loads(told["OPENSANDBOX_EGRESS_RULES"]) == POLICY
    assert (told["OPENSANDBOX_EGRESS_SANDBOX_ID"], told["OPENSANDBOX_EGRESS_LOG_LEVEL"]) == (sandbox_id, "debug")
    assert told["OPENSANDBOX_EGRESS_TOKEN"] == sandbox.labels["opensandbox.io/egress-auth-token"]
    assert api.policy(sandbox_id).json()["policy"] == POLICY
    shown = api.http.get(f"/sandboxes/{sandbox_id}/diagnostics/inspect").text
    assert told["OPENSANDBOX_EGRESS_TOKEN"] not in shown + api.http.get(f"/sandboxes/{sandbox_id}").text


def test_a_policy_changes_by_the_servers_token_and_by_the_endpoints(api: Api) -> None:
    sandbox_id = api.running(networkPolicy={})
    assert api.policy(sandbox_id).json()["mode"] == "deny_all"
    assert "policy" not in api.policy(sandbox_id, "PUT", POLICY, **{AUTH: "forged"}).json()
    more = [{"action": "deny", "target": "a.example.com"}]
    assert api.policy(sandbox_id, "PATCH", more).status_code == 200
    assert api.policy(sandbox_id).json()["policy"] == {**POLICY, "egress": [*more, *POLICY["egress"]]}
    assert api.policy(sandbox_id, "DELETE", ["a.example.com"]).status_code == 200

    through = f"/sandboxes/{sandbox_id}/proxy/18080/policy"
    assert api.http.get(through).status_code == 401
    endpoint = api.http.get(f"/sandboxes/{sandbox_id}/endpoints/18080?use_server_proxy=true").json()
    assert endpoint["endpoint"].endswith(f"/v1/sandboxes/{sandbox_id}/proxy/18080")
    assert api.http.get(through, headers=endpoint["headers"]).json()["policy"] == POLICY
    assert "headers" not in api.http.get(f"/sandboxes/{sandbox_id}/endpoints/8080").json()


@pytest.mark.parametrize("through_the_server", [False, True])
def test_a_credential_reaches_the_vault(api: Api, through_the_server: bool) -> None:
    """The sidecar takes it over loopback alone: from execd, and not at the port that the host publishes."""
    policy = {"defaultAction": "deny", "egress": [{"action": "allow", "target": "a.example"}]}
    sandbox_id = api.running(networkPolicy=policy, credentialProxy={"enabled": True})
    asked = f"/sandboxes/{sandbox_id}/endpoints/18080?use_server_proxy={str(through_the_server).lower()}"
    endpoint = api.http.get(asked).json()
    assert endpoint["endpoint"].endswith("/proxy/18080")
    vault = f"http://{endpoint['endpoint']}/credential-vault"
    made = api.http.post(vault, json=VAULT, headers=endpoint["headers"])
    assert made.status_code == 201, made.text
    assert api.http.get(vault, headers=endpoint["headers"]).json()["credentials"][0]["name"] == "key"


def test_a_rule_that_is_none_is_refused_at_once(api: Api) -> None:
    wrong = {"egress": [{"action": "permit", "target": "a.example"}]}
    refused = api.create(networkPolicy=wrong)
    assert (refused.status_code, refused.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
    assert "networkPolicy.egress[0].action" in refused.json()["message"]


def test_addresses_without_a_filter_for_them_are_told_of(bench: Bench, serve: Serve, parts: Parts) -> None:
    api = Api(serve(f'[egress]\nimage = "{parts.egress}"\nmode = "dns"\n'), bench)
    with api.http:
        made = api.create(networkPolicy={"egress": [{"action": "allow", "target": "10.0.0.0/8"}]})
        assert "10.0.0.0/8" in made.json()["status"]["message"]
        api.reaches(made.json()["id"], "Running")


def test_rules_of_run_time_outlive_a_crash_and_a_restart_of_the_sidecar(api: Api, bench: Bench) -> None:
    sandbox_id = api.running(networkPolicy={})
    assert api.policy(sandbox_id, "PUT", POLICY).status_code == 200
    sidecar = bench.container(sandbox_id, "egress")
    sidecar.exec_run(["sh", "-c", "kill -9 $(ps -o pid= --ppid 1)"])
    while (answer := api.policy(sandbox_id)).status_code == 502:
        time.sleep(0.05)
    assert answer.json()["policy"] == POLICY
    sidecar.restart(timeout=0)
    api.reaches(sandbox_id, "Failed")
    bench.container(sandbox_id).restart(timeout=0)
    api.await_execd(sandbox_id)
    while (answer := api.policy(sandbox_id)).status_code == 502:
        time.sleep(0.05)
    assert answer.json()["policy"] == POLICY


@pytest.mark.parametrize("through_the_server", [False, True])
def test_the_sdk_finds_the_sidecar(api: Api, bench: Bench, server: ServerProcess, through_the_server: bool) -> None:
    config = ConnectionConfigSync(domain=f"127.0.0.1:{server.port}", use_server_proxy=through_the_server)
    policy = NetworkPolicy(defaultAction="deny", egress=[NetworkRule(action="allow", target="*.example.com")])
    sandbox = SandboxSync.create(IMAGE, entrypoint=LONG, network_policy=policy, connection_config=config)
    bench.ids.add(sandbox.id)
    api.reaches(sandbox.id, "Running")
    assert sandbox.get_egress_policy() == policy
    sandbox.patch_egress_rules([NetworkRule(action="deny", target="a.example.com")])
    sandbox.kill()
    sandbox.close()
    assert bench.left(sandbox.id) == []


def test_sandbox_and_sidecar_live_pause_and_die_together(api: Api, bench: Bench) -> None:
    sandbox_id = api.running(networkPolicy=POLICY)
    sidecar = bench.container(sandbox_id, "egress")
    for operation, state, status in (("pause", "Paused", "paused"), ("resume", "Running", "running")):
        assert api.http.post(f"/sandboxes/{sandbox_id}/{operation}").status_code == 202
        api.reaches(sandbox_id, state)
        sidecar.reload()
        assert sidecar.status == status
    assert api.policy(sandbox_id).json()["policy"] == POLICY
    assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    assert bench.left(sandbox_id) == []


def test_both_share_the_directory_of_execd(api: Api, bench: Bench) -> None:
    sandbox_id = api.running(networkPolicy=POLICY)
    bench.container(sandbox_id, "egress").exec_run(["touch", "/opt/opensandbox/left-by-the-sidecar"])
    seen = bench.container(sandbox_id).exec_run(["ls", "/opt/opensandbox"]).output.decode().split()
    assert "left-by-the-sidecar" in seen


def test_a_server_started_in_place_of_another_knows_the_token(bench: Bench, serve: Serve, parts: Parts) -> None:
    """Containers as opensandbox-server makes them (docs/wire/docker.md sections 3, 7 and 8)."""
    sandbox_id, token = bench.new_id(), "made-by-another-server"
    ports = {"44772/tcp": None, "8080/tcp": None, "18080/tcp": None}
    env = {"OPENSANDBOX_EGRESS_TOKEN": token, "OPENSANDBOX_EGRESS_RULES": json.dumps(POLICY)}
    sidecar = bench.client.containers.run(
        parts.egress,
        detach=True,
        name=f"sandbox-egress-{sandbox_id}",
        labels={"opensandbox.io/egress-sidecar-for": sandbox_id},
        environment=env,
        ports=ports,
        cap_add=["NET_ADMIN"],
    )
    sidecar.reload()
    mapped = {port: sidecar.ports[port][0]["HostPort"] for port in ports}
    labels = {
        "opensandbox.io/manual-cleanup": "true",
        "opensandbox.io/egress-auth-token": token,
        "opensandbox.io/http-port": mapped["8080/tcp"],
        "opensandbox.io/embedding-proxy-port": mapped["44772/tcp"],
    }
    daemon = ["sh", "-c", "mkdir -p /opt/opensandbox; EXECD=/execd exec sh /bootstrap.sh sleep 600"]
    bench.run(sandbox_id, labels, image=parts.execd, entrypoint=daemon, network_mode=f"container:{sidecar.id}")
    api = Api(serve(f'[egress]\nimage = "{parts.egress}"\n'), bench)
    with api.http:
        endpoint = api.http.get(f"/sandboxes/{sandbox_id}/endpoints/18080").json()
        assert endpoint["endpoint"].endswith(f":{mapped['44772/tcp']}/proxy/18080")
        assert endpoint["headers"] == {AUTH: token}
        api.await_execd(sandbox_id)
        assert api.policy(sandbox_id).json()["policy"] == POLICY
        assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
        assert bench.left(sandbox_id) == []


@pytest.mark.parametrize(
    ("egress", "network", "fields"),
    [
        ("", "bridge", {}),
        ("[egress]\nmode = 'dns'\n", "bridge", {}),
        ("[egress]\nimage = 'none-such'\n", "host", {}),
        ("[egress]\nimage = 'none-such'\n", "bridge", {"credentialProxy": {"enabled": True}}),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_made(
    bench: Bench, serve: Serve, egress: str, network: str, fields: dict[str, Any]
) -> None:
    api = Api(serve(egress, network_mode=network), bench)
    with api.http:
        refused = api.create(networkPolicy=POLICY, **fields)
        assert (refused.status_code, refused.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")


def test_a_sandbox_without_a_policy_has_no_sidecar(api: Api, bench: Bench) -> None:
    sandbox_id = api.running(env={"OPENSANDBOX_EGRESS_MITMPROXY_TRANSPARENT": "true"})
    assert "OPENSANDBOX_EGRESS_MITMPROXY_TRANSPARENT" not in environment(bench.container(sandbox_id))
    answer = api.policy(sandbox_id)
    assert (answer.status_code, answer.json()["code"]) == (502, "BACKEND_CONNECTION_FAILED")
    assert "headers" not in api.http.get(f"/sandboxes/{sandbox_id}/endpoints/18080").json()


@pytest.mark.parametrize("policy", [None, POLICY])
def test_sidecars_of_a_caller_are_reached_beside_the_sandbox(api: Api, bench: Bench, policy: Any) -> None:
    serve = "mkdir /tmp/w && echo $WHO >/tmp/w/who && exec httpd -f -p 5432 -h /tmp/w"
    web = {
        "name": "web",
        "image": {"uri": IMAGE},
        "command": ["sh", "-c", serve],
        "env": {"WHO": "sidecar"},
        "ports": [5432],
        "resourceLimits": {"memory": "64Mi"},
    }
    sandbox_id = api.running(sidecars=[web], networkPolicy=policy)
    container = bench.container(sandbox_id, "web")
    assert container.attrs["HostConfig"]["Memory"] == 64 * 1024 * 1024
    assert "NET_ADMIN" in " ".join(container.attrs["HostConfig"]["CapDrop"])
    deadline = time.monotonic() + 60
    while (answer := api.http.get(f"/sandboxes/{sandbox_id}/proxy/5432/who")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    assert answer.text == "sidecar\n"
    inside = bench.container(sandbox_id).exec_run(["wget", "-q", "-O", "-", "http://127.0.0.1:5432/who"])
    assert inside.output == b"sidecar\n"
    assert api.http.get(f"/sandboxes/{sandbox_id}/endpoints/5432").json()["endpoint"]
    assert api.http.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    assert bench.left(sandbox_id) == []
