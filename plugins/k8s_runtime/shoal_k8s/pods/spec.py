"""From a workload plan to a pod spec (docs/wire/kubernetes.md sections 5 and 8); pure functions.

The sandbox's own container comes first, then the sidecars; an init container brings execd where one is configured.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.plugin.interfaces import AGENT_TOKEN_LABEL
from shoal_k8s.pods import gate, installer, placement, quantities, sidecars, storage, windows
from shoal_k8s.pods.defaults import RUNTIME_DIR, PodDefaults
from shoal_k8s.pods.secrets import pull_secret, pull_secret_name
from shoal_k8s.pods.status import MAIN
from shoal_k8s.snapshots.objects import restorable

ISOLATION_EXTENSION: Final = "bootstrap.execd.isolation"


def pod_spec(plan: WorkloadPlan, defaults: PodDefaults) -> dict[str, Any]:
    """The pod spec of a plan that `check` let pass."""
    guest = windows.is_guest(plan)
    main = _guest(plan, defaults) if guest else _main(plan, defaults)
    resources = main.get("resources", {})
    beside = [sidecars.container(sidecar, defaults, resources) for sidecar in plan.sidecars]
    spec: dict[str, Any] = {"automountServiceAccountToken": False, "containers": [main, *beside]}
    optional = {
        "volumes": _volumes(plan, defaults),
        "initContainers": installer.init_containers(plan.sidecars, defaults, resources, windows=guest),
        "runtimeClassName": defaults.runtime_class,
        "nodeSelector": placement.selector(plan.platform),
        "imagePullSecrets": [{"name": pull_secret_name(plan.id)}] if pull_secret(plan) is not None else [],
        "restartPolicy": "Always" if guest else None,
    }
    return {**spec, **{name: value for name, value in optional.items() if value}}


def check(plan: WorkloadPlan, defaults: PodDefaults) -> None:
    """Raise InvalidRequest for what no pod can be."""
    quantities.check(plan.resource_limits, plan.resource_requests)
    for sidecar in plan.sidecars:
        quantities.check(sidecar.resource_limits, sidecar.resource_requests)
    if plan.resource_requests and not plan.resource_limits:
        raise InvalidRequest(codes.INVALID_PARAMETER, "resourceRequests need resourceLimits.")
    placement.check(plan, {}, defaults)
    counted = Counter(volume["name"] for volume in pod_spec(plan, defaults).get("volumes", []))
    for name, times in counted.items():
        if times > 1:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"The volume name {name!r} is taken by the sandbox's own.")


def spec_defaults(spec: dict[str, Any], plan: WorkloadPlan) -> dict[str, Any]:
    """What holds where a template says nothing else: what ended stays ended, and a filter outlives what it filters."""
    spec.setdefault("restartPolicy", "Never")
    if any(sidecar.first for sidecar in plan.sidecars):
        spec["terminationGracePeriodSeconds"] = spec.get("terminationGracePeriodSeconds") or gate.FILTER_GRACE
    return spec


def _image(plan: WorkloadPlan) -> str | None:
    return plan.image if plan.snapshot_image is None else restorable(plan.snapshot_image)


def _volumes(plan: WorkloadPlan, defaults: PodDefaults) -> list[dict[str, Any]]:
    own: list[dict[str, Any]] = []
    if defaults.execd_image is not None:
        own.append({"name": storage.BIN, "emptyDir": {}})
    if _isolated(plan):
        own.append({"name": storage.ISOLATION, "emptyDir": {}})
    if windows.is_guest(plan):
        own += windows.volumes()
    return [*own, *sidecars.volumes(plan.sidecars), *storage.pod_volumes(plan.volumes)]


def _guest(plan: WorkloadPlan, defaults: PodDefaults) -> dict[str, Any]:
    """The emulator of a Windows guest: nothing of what a Linux sandbox's container is given but its id."""
    container: dict[str, Any] = {
        "name": MAIN,
        "image": _image(plan),
        "imagePullPolicy": defaults.pull_policy,
        "env": [{"name": name, "value": value} for name, value in windows.variables(plan).items()],
        "volumeMounts": [*windows.mounts(), *storage.mounts(plan.volumes)],
        "securityContext": {"privileged": True, "capabilities": {"add": list(windows.CAPABILITIES)}},
    }
    own = {"command": windows.command(plan), "resources": windows.resources(plan.resource_limits)}
    return {**container, **{name: value for name, value in own.items() if value}}


def _main(plan: WorkloadPlan, defaults: PodDefaults) -> dict[str, Any]:
    bootstrap = gate.command([gate.BOOTSTRAP] if defaults.execd_image is not None else [], plan.sidecars)
    container: dict[str, Any] = {
        "name": MAIN,
        "image": _image(plan),
        "imagePullPolicy": defaults.pull_policy,
        "command": [*bootstrap, *plan.argv],
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
    """The server's own values win; a null is empty, for Kubernetes cannot unset what the image sets."""
    env = {name: value or "" for name, value in plan.env.items()}
    if plan.lifecycle is not None:
        env["OPENSANDBOX_LIFECYCLE"] = msgspec.json.encode(plan.lifecycle).decode()
    env["OPENSANDBOX_ID"] = plan.id
    token = plan.labels.get(AGENT_TOKEN_LABEL)
    if token and defaults.token_environment is not None:
        env |= defaults.token_environment(token)
    if defaults.execd_as_init:
        env["EXECD_INIT"] = "1"
    if defaults.execd_image is not None:
        env["EXECD"] = f"{RUNTIME_DIR}/execd"
    return [{"name": name, "value": value} for name, value in env.items()]


def _resources(plan: WorkloadPlan) -> dict[str, dict[str, str]]:
    limits = quantities.named(plan.resource_limits)
    return {"limits": limits, "requests": quantities.named(plan.resource_requests) or limits} if limits else {}


def _security(plan: WorkloadPlan) -> dict[str, Any]:
    security: dict[str, Any] = {}
    capabilities: dict[str, list[str]] = {}
    if plan.drop_capabilities:
        capabilities["drop"] = list(plan.drop_capabilities)
    if _isolated(plan):
        capabilities["add"] = ["SYS_ADMIN"]
        security["seccompProfile"] = {"type": "Unconfined"}
        security["appArmorProfile"] = {"type": "Unconfined"}
    if capabilities:
        security["capabilities"] = capabilities
    return security


def _isolated(plan: WorkloadPlan) -> bool:
    return plan.extensions.get(ISOLATION_EXTENSION, "").strip().lower() == "enable"
