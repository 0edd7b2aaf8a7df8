"""Template files of plain pods: what an operator wants of every sandbox, up to Pod Security "restricted"."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types
from tests.k8s_runtime.deployment import DEPLOY
from tests.k8s_runtime.test_providers import new_plan, runtime_for

from shoal.errors import ConfigError, InvalidRequest
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.models.requests import PlatformSpec
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery
from shoal_k8s.api import KubeClient
from shoal_k8s.pods.objects import PODS
from shoal_k8s.providers.template import merge, secured
from shoal_k8s.runtime import KubernetesRuntime

pytestmark = [pytest.mark.timeout(300)]

RESTRICTED = DEPLOY / "examples" / "restricted-pods.yaml"
BESIDE = Sidecar(name="beside", image="shoal-test/busybox:latest", command=["sleep", "600"])


@asynccontextmanager
async def runtime_with(namespace: str, file: Path) -> AsyncIterator[KubernetesRuntime]:
    runtime = runtime_for(namespace, "pod", pod_template_file=str(file))
    await runtime.start()
    try:
        yield runtime
    finally:
        for workload in await runtime.list():
            await runtime.delete(workload.id)
        await runtime.stop()


async def made(runtime: KubernetesRuntime, plan: WorkloadPlan) -> None:
    await runtime.check(plan)
    workload = await runtime.create(plan, lambda reason, message: None)
    assert workload.phase is Phase.RUNNING


def breaches(spec: dict[str, Any]) -> Iterator[str]:
    """What Pod Security "restricted" has against a pod; its admission is not in every cluster."""
    shared = spec.get("securityContext", {})
    kinds = {key for volume in spec.get("volumes", []) for key in volume if key != "name"}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    yield from sorted(kinds - allowed)
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = {**shared, **container.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: allowPrivilegeEscalation"
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            yield f"{container['name']}: runAsNonRoot"
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{container['name']}: seccompProfile"
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{container['name']}: capabilities"


@pytest.mark.needs("k8s")
async def test_a_sandbox_that_the_level_restricted_admits(client: KubeClient, namespace: str) -> None:
    async with runtime_with(namespace, RESTRICTED) as runtime:
        plan = new_plan(command=["sh", "-c", "id -u; ls /opt/opensandbox; exec sleep 600"], sidecars=[BESIDE])
        await made(runtime, plan)
        pod = await client.get(PODS, namespace, plan.id, dict[str, Any])
        assert list(breaches(pod["spec"])) == []
        assert [each["name"] for each in pod["spec"]["containers"]] == ["sandbox", "beside"]
        said = await runtime.logs(plan.id, LogQuery())
        assert "10001" in said
        assert "bootstrap.sh" in said


@pytest.mark.needs("k8s")
async def test_where_and_how_pods_run_is_the_operators(client: KubeClient, namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    expression = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    preferred = [{"weight": 1, "preference": {"matchExpressions": [expression]}}]
    spec: dict[str, Any] = {
        "tolerations": [{"key": "sandboxes", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "restartPolicy": "Always",
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "containers": [{"name": "sandbox", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
    }
    file.write_text(yaml.safe_dump({"metadata": {"labels": {"team": "a"}}, "spec": spec}))
    async with runtime_with(namespace, file) as runtime:
        plan = new_plan(metadata={"team": "b"})
        await made(runtime, plan)
        pod = await client.get(PODS, namespace, plan.id, dict[str, Any])
        assert spec["tolerations"][0] in pod["spec"]["tolerations"]
        for field in ("affinity", "nodeSelector", "dnsConfig"):
            assert pod["spec"][field] == spec[field]
        mounts = [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]
        assert mounts == ["/opt/opensandbox", "/scratch"]
        assert (pod["spec"]["restartPolicy"], pod["metadata"]["labels"]["team"]) == ("Never", "b")
        with pytest.raises(InvalidRequest, match="asks for another kubernetes"):
            await runtime.check(new_plan(platform=PlatformSpec(os="darwin", arch="amd64")))


async def test_a_file_that_is_missing_is_found_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "")
    with pytest.raises(ConfigError, match="pod_template_file"):
        runtime_for("default", "pod", pod_template_file=str(tmp_path / "absent.yaml")).check_config()


def test_capabilities_that_are_dropped_add_up() -> None:
    """Of a sandbox behind an egress sidecar, say."""
    template = {"containers": [{"name": "sandbox", "securityContext": {"capabilities": {"drop": ["ALL"]}}}]}
    own = {"containers": [{"name": "sandbox", "securityContext": {"capabilities": {"drop": ["NET_ADMIN"]}}}]}
    (main,) = merge(template, own)["containers"]
    assert main["securityContext"]["capabilities"]["drop"] == ["ALL", "NET_ADMIN"]


def test_sidecars_are_held_to_what_the_sandbox_is_held_to() -> None:
    held = {"allowPrivilegeEscalation": False}
    template = {"containers": [{"name": "sandbox", "securityContext": held}, {"name": "known"}]}
    needs = {"capabilities": {"add": ["NET_ADMIN"]}}
    own = {
        "containers": [
            {"name": "sandbox"},
            {"name": "any"},
            {"name": "egress", "securityContext": needs},
            {"name": "known"},
        ]
    }
    _, any_, egress, known = secured(template, own)["containers"]
    assert (any_["securityContext"], egress["securityContext"], "securityContext" in known) == (held, needs, False)
