"""Pod specs, each accepted by a real API server, and what is refused before anything is made."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with the kubernetes package, without types
from msgspec.structs import replace
from tests.k8s_runtime.controllers import BATCH, install
from tests.k8s_runtime.test_providers import new_plan, runtime_for

from shoal.errors import InvalidRequest
from shoal.models.plan import NetworkPlan, Probe, SecretFile, Sidecar
from shoal.models.requests import (
    ClaimVolume,
    HostVolume,
    ImageAuth,
    LifecycleHook,
    LifecycleHooks,
    NetworkPolicy,
    PlatformSpec,
    Volume,
)
from shoal.models.secret import Secret
from shoal.plugin.interfaces import AGENT_TOKEN_LABEL
from shoal_k8s.api import KubeClient
from shoal_k8s.pods import placement, spec
from shoal_k8s.pods.defaults import PodDefaults
from shoal_k8s.pods.objects import PODS
from shoal_k8s.pods.secrets import pull_secret

DEFAULTS = PodDefaults(execd_image="execd:1")
WINDOWS = PlatformSpec(os="windows", arch="amd64")
ARM = PlatformSpec(os="linux", arch="arm64")
POLICY = NetworkPlan(policy=NetworkPolicy())
AUTH = ImageAuth(username="u", password=Secret("p"))


def egress(**changes: Any) -> Sidecar:
    made: dict[str, Any] = {
        "name": "egress",
        "image": "egress:1",
        "ports": [18080],
        "capabilities": ["NET_ADMIN"],
        "trusted": True,
        "first": True,
        "ready": Probe(port=18080, path="/healthz", headers={"A": "b"}),
        "resource_limits": {"cpu": "1"},
        "resource_requests": {"cpu": "100m"},
        "sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"},
        "secret_files": [SecretFile(secret="ca", key="ca.crt", path="/etc/ssl/ca.pem")],
        "volumes": [Volume(name="etc", mount_path="/x", read_only=True, host=HostVolume(path="/etc/hosts"))],
        "shares_runtime_dir": True,
        **changes,
    }
    return Sidecar(**made)


async def accepted(client: KubeClient, made: dict[str, Any]) -> dict[str, Any]:
    """The pod as the API server would keep it."""
    body = {"metadata": {"name": "dry"}, "spec": made}
    path, query = PODS.path("default"), {"dryRun": "All"}
    kept: dict[str, Any] = await client._ask("POST", PODS, path, dict[str, Any], query=query, body=body)
    found: dict[str, Any] = kept["spec"]
    return found


@pytest.mark.needs("k8s")
async def test_a_sidecar_has_all_that_its_plan_says(client: KubeClient) -> None:
    plan = new_plan(sidecars=[egress()], network=POLICY, drop_capabilities=["NET_ADMIN"])
    spec.check(plan, DEFAULTS)
    made = await accepted(client, spec.pod_spec(plan, DEFAULTS))
    main, sidecar = made["containers"]
    assert main["securityContext"]["capabilities"] == {"drop": ["NET_ADMIN"]}
    assert sidecar["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}
    assert (sidecar["ports"][0]["containerPort"], sidecar["ports"][0]["name"]) == (18080, "egress-api")
    mounts = {mount["mountPath"]: mount for mount in sidecar["volumeMounts"]}
    assert mounts["/etc/ssl/ca.pem"]["subPath"] == "ca.crt"
    assert set(mounts) == {"/opt/opensandbox", "/etc/ssl/ca.pem", "/x"}
    volumes = {volume["name"]: volume for volume in made["volumes"]}
    assert volumes[mounts["/etc/ssl/ca.pem"]["name"]]["secret"]["secretName"] == "ca"
    assert volumes[mounts["/x"]["name"]]["hostPath"]["path"] == "/etc/hosts"
    assert [mount["mountPath"] for mount in main["volumeMounts"]] == ["/opt/opensandbox"]
    (init,) = made["initContainers"]
    assert init["securityContext"] == {"privileged": True}
    assert "/proc/sys/net/ipv6/conf/all/disable_ipv6" in init["command"][2]


@pytest.mark.needs("k8s")
async def test_without_execd_the_sidecars_own_image_sets_what_it_wants(client: KubeClient) -> None:
    made = await accepted(client, spec.pod_spec(new_plan(sidecars=[egress()]), PodDefaults()))
    (init,) = made["initContainers"]
    assert (init["image"], init["securityContext"]) == ("egress:1", {"privileged": True})
    plain = spec.pod_spec(new_plan(sidecars=[egress(sysctls={})]), PodDefaults())
    assert "initContainers" not in plain


@pytest.mark.needs("k8s")
async def test_a_windows_guest(client: KubeClient) -> None:
    limits = {"cpu": "3500m", "memory": "6Gi", "disk": "64G"}
    plan = new_plan(platform=WINDOWS, resource_limits=limits, command=["tail", "-f", "/dev/null"], env={"A": "1"})
    spec.check(plan, DEFAULTS)
    made = await accepted(client, spec.pod_spec(plan, DEFAULTS))
    (main,) = made["containers"]
    assert "command" not in main
    assert main["resources"]["limits"] == {"cpu": "3500m", "memory": "8Gi"}
    env = {entry["name"]: entry["value"] for entry in main["env"]}
    sizes = {"CPU_CORES": "4", "RAM_SIZE": "6G", "DISK_SIZE": "64G", "USER_PORTS": "44772,8080,3389,8006"}
    assert env == {"A": "1", "OPENSANDBOX_ID": plan.id, **sizes}
    assert main["securityContext"] == {"privileged": True, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}
    assert (made["nodeSelector"], made["restartPolicy"]) == ({"kubernetes.io/arch": "amd64"}, "Always")
    devices = [volume["hostPath"]["path"] for volume in made["volumes"] if "hostPath" in volume]
    assert devices == ["/dev/kvm", "/dev/net/tun"]
    assert "/oem/execd.exe" in made["initContainers"][0]["command"][2]
    assert spec.pod_spec(replace(plan, command=["run"]), DEFAULTS)["containers"][0]["command"] == ["run"]


@pytest.mark.needs("k8s")
async def test_isolation_hooks_and_environment(client: KubeClient) -> None:
    hook = LifecycleHooks(pre_start=LifecycleHook(command=["true"]))
    plan = new_plan(
        extensions={"bootstrap.execd.isolation": "enable"},
        lifecycle=hook,
        env={"KEPT": "1", "EMPTIED": None, "OPENSANDBOX_ID": "mine"},
        resource_limits={"cpu": "1", "gpu": "2", "example.com/fpga": "1"},
    )
    spec.check(plan, DEFAULTS)
    made = await accepted(client, spec.pod_spec(plan, DEFAULTS))
    main = made["containers"][0]
    env = {entry["name"]: entry.get("value", "") for entry in main["env"]}
    assert env == {
        "KEPT": "1",
        "EMPTIED": "",
        "OPENSANDBOX_LIFECYCLE": '{"preStart":{"command":["true"]}}',
        "OPENSANDBOX_ID": plan.id,
        "EXECD": "/opt/opensandbox/execd",
    }
    assert main["resources"]["limits"] == {"cpu": "1", "nvidia.com/gpu": "2", "example.com/fpga": "1"}
    assert main["resources"]["requests"] == main["resources"]["limits"]
    assert main["securityContext"]["capabilities"] == {"add": ["SYS_ADMIN"]}
    assert main["securityContext"]["seccompProfile"] == {"type": "Unconfined"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resource_limits": {"gpu": "all"}}, "'all' is not possible"),
        ({"resource_limits": {"gpu": "0"}}, "positive integer"),
        ({"resource_limits": {"memory": "lots"}}, "resourceLimits.memory"),
        ({"resource_limits": {"memory": "512m"}}, "512Mi is mebibytes"),
        ({"resource_limits": {"cpu": "1"}, "resource_requests": {"cpu": "2"}}, "more than its limit"),
        ({"resource_requests": {"cpu": "1"}}, "need resourceLimits"),
        ({"sidecars": [Sidecar(name="a", image="b", resource_limits={"cpu": "x"})]}, "resourceLimits.cpu"),
        ({"platform": WINDOWS, "resource_limits": {"memory": "1Gi"}}, "Windows needs at least 4G"),
        ({"volumes": [Volume(name="egress-etc", mount_path="/e", pvc=ClaimVolume(claim_name="c"))]}, "taken"),
    ],
)
def test_what_no_pod_can_be_is_refused(changes: dict[str, Any], said: str) -> None:
    plan = new_plan(**{"sidecars": [egress()], **changes})
    with pytest.raises(InvalidRequest, match=said):
        spec.check(plan, DEFAULTS)


def test_a_policy_on_gvisor_is_refused() -> None:
    plan = new_plan(network=POLICY)
    spec.check(plan, PodDefaults(runtime_class="kata-qemu"))
    for defaults in (PodDefaults(runtime_class="gvisor"), PodDefaults(runtime_class="mine", gvisor=True)):
        with pytest.raises(InvalidRequest, match="gVisor"):
            spec.check(plan, defaults)
    with pytest.raises(InvalidRequest, match="gVisor"):
        placement.check(plan, {"runtimeClassName": "gvisor"}, DEFAULTS)


def affine(operator: str, *values: str) -> dict[str, Any]:
    rule = {"key": "kubernetes.io/arch", "operator": operator, "values": list(values)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


@pytest.mark.parametrize(
    "template",
    [
        {"nodeSelector": {"kubernetes.io/arch": "amd64"}},
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        affine("In", "amd64", "s390x"),
        affine("NotIn", "arm64"),
        affine("DoesNotExist"),
    ],
)
def test_a_platform_that_the_template_contradicts_is_refused(template: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="platform"):
        placement.check(new_plan(platform=ARM), template, DEFAULTS)


def test_a_platform_that_the_template_allows() -> None:
    for template in (
        {"nodeSelector": {"zone": "a"}},
        affine("In", "arm64"),
        affine("Exists"),
        affine("NotIn", "amd64"),
    ):
        placement.check(new_plan(platform=ARM), template, DEFAULTS)
    placement.check(new_plan(), affine("In", "amd64"), DEFAULTS)


def test_the_registries_of_a_pull_secret() -> None:
    images = {
        "python:3.13": "https://index.docker.io/v1/",
        "team/python": "https://index.docker.io/v1/",
        "registry.example.com/a/b:1": "registry.example.com",
        "registry:5000/a": "registry:5000",
        "localhost/a:1": "localhost",
    }
    sidecars = [Sidecar(name=f"s{index}", image=image, image_auth=AUTH) for index, image in enumerate(images)]
    secret = pull_secret(new_plan(sidecars=sidecars))
    assert secret is not None
    auths = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    assert set(auths) == set(images.values())
    assert auths["localhost"] == {"username": "u", "password": "p", "auth": base64.b64encode(b"u:p").decode()}


@pytest.mark.needs("k8s")
async def test_the_template_file_counts_at_the_check(client: KubeClient, namespace: str, tmp_path: Path) -> None:
    await install(client, BATCH)
    file = tmp_path / "template.yaml"
    pod = {"nodeSelector": {"kubernetes.io/arch": "amd64"}, "volumes": [{"name": "data", "emptyDir": {}}]}
    file.write_text(yaml.safe_dump({"spec": {"template": {"spec": pod}}}))
    runtime = runtime_for(namespace, "batchsandbox", batchsandbox_template_file=str(file))
    await runtime.start()
    try:
        with pytest.raises(InvalidRequest, match="another kubernetes"):
            await runtime.check(new_plan(platform=ARM))
        mine = Volume(name="data", mount_path="/data", pvc=ClaimVolume(claim_name="c"))
        with pytest.raises(InvalidRequest, match="'data' is taken"):
            await runtime.check(new_plan(volumes=[mine]))
        await runtime.check(new_plan(platform=PlatformSpec(os="linux", arch="amd64")))
    finally:
        await runtime.stop()


def test_one_word_with_a_space_is_a_command_line() -> None:
    made = spec.pod_spec(new_plan(command=["sleep '6 0'"]), DEFAULTS)
    assert made["containers"][0]["command"][-2:] == ["sleep", "6 0"]


def test_an_agents_token_is_told_as_what_the_agent_makes_of_it() -> None:
    plan = new_plan(env={"DIGEST": "mine"}, labels={AGENT_TOKEN_LABEL: "t0k3n"})
    told = {"name": "DIGEST", "value": "of 5"}
    given = PodDefaults(execd_image="execd:1", token_environment=lambda token: {"DIGEST": f"of {len(token)}"})
    made = spec.pod_spec(plan, given)["containers"][0]["env"]
    assert told in made
    assert "t0k3n" not in str(made)
    assert told not in spec.pod_spec(plan, DEFAULTS)["containers"][0]["env"]
