"""What the egress sidecar does, held against the stand-in and, where it is at hand, the real one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import docker.errors
import httpx
import pytest
from tests.egress_policy.image import BASE, KINDS, dockerfile, real_image
from tests.support.bench import Bench
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(180)]

AUTH = {"OPENSANDBOX-EGRESS-AUTH": "t0ken"}
RULES = {"egress": [{"action": "allow", "target": "a.example"}]}
VAULT = {
    "credentials": [{"name": "key", "source": {"value": "hush"}}],
    "bindings": [
        {
            "name": "site",
            "match": {"schemes": ["http"], "ports": [80], "hosts": ["a.example"], "methods": ["GET"], "paths": ["/"]},
            "auth": {"type": "bearer", "credential": "key"},
        }
    ],
}


class Sidecar:
    """One that runs by itself, with its port published."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.http = httpx.Client(timeout=30, headers=AUTH)

    def base(self) -> str:
        self.container.reload()
        return f"http://127.0.0.1:{self.container.ports['18080/tcp'][0]['HostPort']}"

    def healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get(f"{self.base()}/healthz").status_code == 200
        return False

    def ask(self, method: str = "GET", body: Any = None, path: str = "/policy", **more: Any) -> httpx.Response:
        return self.http.request(method, self.base() + path, json=body, **more)

    def policy(self) -> Any:
        return self.ask().json()["policy"]

    def inside(self, script: str) -> str:
        """The output of a shell in its container."""
        return str(self.container.exec_run(["sh", "-c", script]).output.decode())


Start = Callable[..., Sidecar]


@pytest.fixture(scope="module", params=KINDS)
def image(request: pytest.FixtureRequest, module_bench: Bench) -> str:
    return real_image() if request.param == "real" else module_bench.image(dockerfile(), BASE)


@pytest.fixture
def start(image: str, bench: Bench) -> Iterator[Start]:
    """``start(rules, MODE=…)``: a sidecar with those variables, once it is ready (``wait=False``: at once)."""
    with contextlib.ExitStack() as stack:

        def started(rules: Any, *, wait: bool = True, **variables: str) -> Sidecar:
            told = {"RULES": json.dumps(rules), "TOKEN": "t0ken", "MODE": "dns+nft", **variables}
            env = {f"OPENSANDBOX_EGRESS_{name}": value for name, value in told.items()}
            container = bench.client.containers.run(
                image, detach=True, environment=env, ports={"18080/tcp": None}, cap_add=["NET_ADMIN"]
            )
            stack.callback(container.remove, force=True, v=True)
            sidecar = Sidecar(container)
            stack.callback(sidecar.http.close)
            if wait:
                eventually(sidecar.healthy)
            return sidecar

        yield started


def refused(answer: httpx.Response) -> int:
    """The status of an answer in plain text."""
    assert answer.headers["content-type"].startswith("text/plain"), answer.text
    return answer.status_code


def test_who_may_ask(start: Start) -> None:
    sidecar = start(RULES)
    nobody = httpx.get(f"{sidecar.base()}/policy")
    assert (refused(nobody), nobody.text.strip()) == (401, "unauthorized")
    assert refused(sidecar.ask(headers={"OPENSANDBOX-EGRESS-AUTH": "forged"})) == 401
    assert httpx.get(f"{sidecar.base()}/healthz").text == "ok"


@pytest.mark.parametrize(
    ("rules", "mode", "policy"),
    [
        ({}, "deny_all", {"defaultAction": "deny", "egress": None}),
        ({"egress": []}, "deny_all", {"defaultAction": "deny", "egress": []}),
        ({"defaultAction": "allow", "egress": []}, "allow_all", {"defaultAction": "allow", "egress": []}),
        (RULES, "enforcing", {"defaultAction": "deny", **RULES}),
    ],
)
def test_what_it_says_of_its_policy(start: Start, rules: Any, mode: str, policy: Any) -> None:
    told = start(rules).ask().json()
    assert told == {"status": "ok", "mode": mode, "enforcementMode": "dns+nft", "policy": policy}


def test_a_policy_is_replaced_merged_and_thinned_out(start: Start) -> None:
    sidecar = start(RULES, MODE="dns")
    done = {"status": "ok", "mode": "enforcing", "enforcementMode": "dns"}
    new = [{"action": "deny", "target": "A.example"}, {"target": "b.example"}]
    assert sidecar.ask("PATCH", new).json() == done
    kept = [{"action": "deny", "target": "A.example"}, {"action": "deny", "target": "b.example"}]
    assert sidecar.policy()["egress"] == kept
    assert sidecar.ask("PATCH", [{"action": "allow", "target": "c.example"}]).json() == done
    assert sidecar.policy()["egress"] == [{"action": "allow", "target": "c.example"}, *kept]
    assert sidecar.ask("DELETE", ["B.EXAMPLE", "none.example"]).json() == done
    assert sidecar.policy()["egress"] == [{"action": "allow", "target": "c.example"}, kept[0]]
    assert sidecar.ask("DELETE", ["none.example"]).json() == {**done, "reason": "no matching targets found"}
    assert sidecar.ask("PUT", {"defaultAction": "allow", "egress": []}).json() == {**done, "mode": "allow_all"}
    assert sidecar.policy() == {"defaultAction": "allow", "egress": []}


def test_what_it_refuses_changes_nothing(start: Start) -> None:
    sidecar = start(RULES)
    for method, body in (
        ("PATCH", []),
        ("DELETE", []),
        ("PATCH", [{"action": "perhaps", "target": "x"}]),
        ("PUT", {"egress": [{"action": "perhaps", "target": "x"}]}),
        ("PUT", {"egress": [{"action": "allow", "target": " "}]}),
    ):
        assert refused(sidecar.ask(method, body)) == 400, (method, body)
    assert sidecar.policy() == {"defaultAction": "deny", **RULES}


def test_rules_that_cannot_be_read_are_a_loop_of_restarts(start: Start) -> None:
    sidecar = start({"egress": [{"action": "perhaps", "target": "x"}]}, wait=False)
    eventually(lambda: sidecar.container.logs().decode().count("unsupported action") > 2)
    sidecar.container.reload()
    assert sidecar.container.status == "running"
    assert not sidecar.healthy()


def test_credentials_are_taken_over_loopback_alone(start: Start) -> None:
    plain = start(RULES)
    assert refused(plain.ask("POST", VAULT, "/credential-vault")) == 412
    sidecar = start(RULES, MITMPROXY_TRANSPARENT="true")
    for method in ("POST", "PATCH", "DELETE"):
        assert refused(sidecar.ask(method, VAULT, "/credential-vault")) == 426
    curl = "curl -s -w %{http_code} -H 'OPENSANDBOX-EGRESS-AUTH: t0ken' http://127.0.0.1:18080/credential-vault"
    told = sidecar.inside(f"{curl} -d '{json.dumps(VAULT)}'")
    assert told.endswith("201"), told
    assert "hush" not in told
    shown = sidecar.ask(path="/credential-vault").json()
    assert [each["name"] for each in shown["credentials"]] == ["key"]
    assert [each["name"] for each in shown["bindings"]] == ["site"]
    assert refused(sidecar.ask("DELETE", path="/credential-vault")) == 426
    assert sidecar.inside(f"{curl} -X DELETE") == "204"
    assert refused(sidecar.ask(path="/credential-vault")) == 404


def test_addresses_are_filtered_in_its_network_until_it_is_told_to_end(start: Start, bench: Bench) -> None:
    web = start({}, MODE="dns")  # any that listens
    address = next(iter(web.container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    for rules, mode, passes in (
        ({}, "dns", True),
        ({}, "dns+nft", False),
        ({"egress": [{"action": "allow", "target": address}]}, "dns+nft", True),
        ({"egress": [{"action": "allow", "target": f"{address}/32"}]}, "dns+nft", True),
        ({"defaultAction": "allow", "egress": [{"action": "deny", "target": address}]}, "dns+nft", False),
    ):
        sidecar = start(rules, MODE=mode)
        with beside(sidecar, bench) as sandbox:
            assert reaches(sandbox, address) is passes, (rules, mode)


def test_what_it_filtered_is_open_as_soon_as_it_is_told_to_end(start: Start, bench: Bench) -> None:
    sidecar = start({})
    with beside(sidecar, bench) as sandbox:
        assert "opensandbox" in tables(sandbox)
        assert sidecar.container.stop(timeout=30) is None
        assert "opensandbox" not in tables(sandbox)
    sidecar.container.reload()
    assert sidecar.container.attrs["State"]["ExitCode"] == 0


@pytest.mark.parametrize("file", ["", "/var/tmp/policy.json"])
def test_a_crash_loses_what_no_file_keeps_and_filters_on(start: Start, bench: Bench, file: str) -> None:
    sidecar = start({}, POLICY_FILE=file)
    assert sidecar.ask("PUT", RULES).status_code == 200
    with beside(sidecar, bench) as sandbox:
        sidecar.inside("kill -9 $(ps -o pid= --ppid 1)")
        assert "opensandbox" in tables(sandbox)
        eventually(sidecar.healthy)
    after = {"defaultAction": "deny", **(RULES if file else {"egress": None})}
    assert sidecar.policy() == after


@contextlib.contextmanager
def beside(sidecar: Sidecar, bench: Bench) -> Iterator[Any]:
    """A container in the sidecar's network, with the means to look at it."""
    container = bench.client.containers.run(
        BASE,
        ["sleep", "600"],
        detach=True,
        network_mode=f"container:{sidecar.container.id}",
        cap_add=["NET_ADMIN"],
        init=True,
    )
    try:
        yield container
    finally:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True)


def tables(sandbox: Any) -> str:
    return str(sandbox.exec_run(["nft", "list", "tables"]).output.decode())


def reaches(sandbox: Any, address: str) -> bool:
    probe = ["curl", "-s", "-m", "2", "-o", "/dev/null", f"http://{address}:18080/healthz"]
    return bool(sandbox.exec_run(probe).exit_code == 0)
