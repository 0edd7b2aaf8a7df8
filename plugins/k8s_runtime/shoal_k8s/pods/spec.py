"""From a workload plan to a pod spec (contract/kubernetes.md sections 5 and 8); pure functions.

The sandbox's own container comes first, then the sidecars; an init container brings execd where one is configured.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.models.requests import ImageAuth
from shoal_k8s.pods import storage
from shoal_k8s.pods.status import MAIN

RUNTIME_DIR: Final = "/opt/opensandbox"
ISOLATION_EXTENSION: Final = "bootstrap.execd.isolation"
GPU: Final = "nvidia.com/gpu"
_DOCKER_HUB: Final = "https://index.docker.io/v1/"
_OPTIONAL: Final = ("opensandbox-session-gate", "opensandbox-launcher")
_INSTALL: Final = "\n".join(
    (
        "set -e",
        f"cp ./execd {RUNTIME_DIR}/execd && chmod 0755 {RUNTIME_DIR}/execd",
        f"cp ./bootstrap.sh {RUNTIME_DIR}/bootstrap.sh && chmod 0755 {RUNTIME_DIR}/bootstrap.sh",
        f"cp /usr/local/bin/bwrap {RUNTIME_DIR}/bwrap 2>/dev/null || true",
        *(
            f"if [ -e /usr/local/libexec/{name} ]; then cp /usr/local/libexec/{name} {RUNTIME_DIR}/{name}; "
            f"chmod 0555 {RUNTIME_DIR}/{name}; fi"
            for name in _OPTIONAL
        ),
    )
)


class PodDefaults(Struct, frozen=True):
    """What every pod of this server shares."""

    execd_image: str | None = None
    execd_as_init: bool = False
    pull_policy: str = "IfNotPresent"
    init_resources: dict[Literal["limits", "requests"], dict[str, str]] = {}
    runtime_class: str | None = None


def pod_spec(plan: WorkloadPlan, defaults: PodDefaults) -> dict[str, Any]:
    """The pod spec of a plan that `check` let pass."""
    isolated = _isolated(plan)
    volumes = storage.pod_volumes(plan.volumes)
    if defaults.execd_image is not None:
        volumes.insert(0, {"name": storage.BIN, "emptyDir": {}})
    if isolated:
        volumes.insert(0, {"name": storage.ISOLATION, "emptyDir": {}})
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [_main(plan, defaults), *(_sidecar(sidecar, defaults) for sidecar in plan.sidecars)],
    }
    if volumes:
        spec["volumes"] = volumes
    if defaults.execd_image is not None:
        spec["initContainers"] = [_installer(defaults)]
    if defaults.runtime_class:
        spec["runtimeClassName"] = defaults.runtime_class
    if plan.platform is not None:
        spec["nodeSelector"] = {"kubernetes.io/os": plan.platform.os, "kubernetes.io/arch": plan.platform.arch}
    if pull_secret(plan) is not None:
        spec["imagePullSecrets"] = [{"name": pull_secret_name(plan.id)}]
    return spec


def check(plan: WorkloadPlan) -> None:
    """Raise InvalidRequest for what no pod can be."""
    if plan.resource_limits.get("gpu", "").strip().lower() == "all":
        raise InvalidRequest(
            codes.INVALID_PARAMETER, "resourceLimits.gpu: 'all' is not possible on Kubernetes; give a number."
        )
    gpu = plan.resource_limits.get("gpu")
    if gpu is not None and not (gpu.strip().isdigit() and int(gpu) > 0):
        raise InvalidRequest(codes.INVALID_PARAMETER, "resourceLimits.gpu: expected a positive integer.")
    if plan.resource_requests and not plan.resource_limits:
        raise InvalidRequest(codes.INVALID_PARAMETER, "resourceRequests need resourceLimits.")
    if plan.platform is not None and plan.platform.os == "windows":
        raise InvalidRequest(codes.INVALID_PARAMETER, "Windows sandboxes are not offered on Kubernetes.")


def _main(plan: WorkloadPlan, defaults: PodDefaults) -> dict[str, Any]:
    bootstrap = [f"{RUNTIME_DIR}/bootstrap.sh"] if defaults.execd_image is not None else []
    container: dict[str, Any] = {
        "name": MAIN,
        "image": plan.snapshot_image or plan.image,
        "imagePullPolicy": defaults.pull_policy,
        "command": [*bootstrap, *plan.command],
        "env": _environment(plan, defaults),
    }
    resources = _resources(plan)
    if resources:
        container["resources"] = resources
    mounts = storage.mounts(plan.volumes)
    if _isolated(plan):
        mounts.insert(0, {"name": storage.ISOLATION, "mountPath": "/var/lib/execd/isolation"})
    if defaults.execd_image is not None:
        mounts.insert(0, {"name": storage.BIN, "mountPath": RUNTIME_DIR})
    if mounts:
        container["volumeMounts"] = mounts
    security = _security(plan)
    if security:
        container["securityContext"] = security
    return container


def _environment(plan: WorkloadPlan, defaults: PodDefaults) -> list[dict[str, str]]:
    """The server's own values win; a null is left out, for Kubernetes cannot unset."""
    env = {name: value for name, value in plan.env.items() if value is not None}
    if plan.lifecycle is not None:
        env["OPENSANDBOX_LIFECYCLE"] = msgspec.json.encode(plan.lifecycle).decode()
    env["OPENSANDBOX_ID"] = plan.id
    if defaults.execd_as_init:
        env["EXECD_INIT"] = "1"
    if defaults.execd_image is not None:
        env["EXECD"] = f"{RUNTIME_DIR}/execd"
    return [{"name": name, "value": value} for name, value in env.items()]


def _resources(plan: WorkloadPlan) -> dict[str, dict[str, str]]:
    limits = _quantities(plan.resource_limits)
    if not limits:
        return {}
    return {"limits": limits, "requests": _quantities(plan.resource_requests) or limits}


def _quantities(given: dict[str, str]) -> dict[str, str]:
    return {(GPU if key == "gpu" else key): value.strip() for key, value in given.items()}


def _security(plan: WorkloadPlan) -> dict[str, Any]:
    security: dict[str, Any] = {}
    capabilities: dict[str, list[str]] = {}
    if plan.drop_capabilities:
        capabilities["drop"] = list(plan.drop_capabilities)
    if _isolated(plan):
        capabilities["add"] = ["SYS_ADMIN"]
        security["seccompProfile"] = {"type": "Unconfined"}
    if capabilities:
        security["capabilities"] = capabilities
    return security


def _isolated(plan: WorkloadPlan) -> bool:
    return plan.extensions.get(ISOLATION_EXTENSION, "").strip().lower() == "enable"


def _sidecar(sidecar: Sidecar, defaults: PodDefaults) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": sidecar.name,
        "image": sidecar.image,
        "imagePullPolicy": defaults.pull_policy,
        "env": [{"name": name, "value": value} for name, value in sidecar.env.items()],
        "ports": [{"containerPort": port} for port in sidecar.ports],
    }
    if sidecar.command is not None:
        container["command"] = sidecar.command
    if sidecar.resource_limits:
        container["resources"] = {"limits": _quantities(sidecar.resource_limits)}
    if sidecar.capabilities:
        container["securityContext"] = {"capabilities": {"add": list(sidecar.capabilities)}}
    if sidecar.shares_runtime_dir and defaults.execd_image is not None:
        container["volumeMounts"] = [{"name": storage.BIN, "mountPath": RUNTIME_DIR}]
    if sidecar.ready is not None:
        headers = [{"name": name, "value": value} for name, value in sidecar.ready.headers.items()]
        container["readinessProbe"] = {
            "httpGet": {"path": sidecar.ready.path, "port": sidecar.ready.port, "httpHeaders": headers},
            "periodSeconds": 1,
            "failureThreshold": max(1, int(sidecar.ready.timeout_seconds)),
        }
    return container


def _installer(defaults: PodDefaults) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "execd-installer",
        "image": defaults.execd_image,
        "imagePullPolicy": defaults.pull_policy,
        "command": ["/bin/sh", "-c", _INSTALL],
        "volumeMounts": [{"name": storage.BIN, "mountPath": RUNTIME_DIR}],
    }
    if defaults.init_resources:
        container["resources"] = defaults.init_resources
    return container


def pull_secret_name(sandbox_id: str) -> str:
    """The secret that holds the registry credentials of one sandbox."""
    return f"opensandbox-image-auth-{sandbox_id}"


def pull_secret(plan: WorkloadPlan) -> dict[str, Any] | None:
    """The secret's data for the images that need credentials; None if none does."""
    wanted = [(plan.image, plan.image_auth), *((sidecar.image, sidecar.image_auth) for sidecar in plan.sidecars)]
    auths = {_registry(image): _login(auth) for image, auth in wanted if image is not None and auth is not None}
    if not auths:
        return None
    content = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": content}}


def _login(auth: ImageAuth) -> dict[str, str]:
    password = auth.password.reveal()
    basic = base64.b64encode(f"{auth.username}:{password}".encode()).decode()
    return {"username": auth.username, "password": password, "auth": basic}


def _registry(image: str) -> str:
    """The registry of an image's name: its first part if that looks like a host."""
    first, slash, _ = image.partition("/")
    return first if slash and (any(mark in first for mark in ".:") or first == "localhost") else _DOCKER_HUB
