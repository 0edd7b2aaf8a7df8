"""Sidecars as containers of the sandbox's pod (docs/wire/kubernetes.md section 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from shoal.models.plan import Probe, Sidecar
from shoal.models.requests import Volume
from shoal_k8s.pods import gate, quantities, storage
from shoal_k8s.pods.defaults import RUNTIME_DIR, PodDefaults


def container(sidecar: Sidecar, defaults: PodDefaults, main: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The container of one.

    Args:
        main: resources of the sandbox's own container.
    """
    made: dict[str, Any] = {
        "name": sidecar.name,
        "image": sidecar.image,
        "imagePullPolicy": defaults.pull_policy,
        "env": [{"name": name, "value": value} for name, value in sidecar.env.items()],
        "ports": [_port(sidecar, port) for port in sidecar.ports],
        **gate.hold(sidecar),
    }
    if sidecar.command is not None:
        made["command"] = sidecar.command
    resources = _resources(sidecar, defaults, main)
    if resources:
        made["resources"] = resources
    if sidecar.capabilities:
        made["securityContext"] = {"capabilities": {"add": list(sidecar.capabilities)}}
    mounts = _mounts(sidecar, defaults)
    if mounts:
        made["volumeMounts"] = mounts
    if sidecar.ready is not None:
        made["readinessProbe"] = _probe(sidecar.ready)
    return made


def _resources(
    sidecar: Sidecar, defaults: PodDefaults, main: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """What it was given; an operator's has a limit of zero for what the sandbox has a limit of.

    A quota counts zero and is content, and kubelets set no limit for it. A caller's sidecar has to bring its own.
    """
    limits, requests = quantities.named(sidecar.resource_limits), quantities.named(sidecar.resource_requests)
    if sidecar.trusted and defaults.zero_limits:
        open_ = quantities.counted(main.get("limits", {})).keys() - limits.keys() - requests.keys()
        limits = {**dict.fromkeys(sorted(open_), "0"), **limits}
    return {kind: amounts for kind, amounts in (("limits", limits), ("requests", requests)) if amounts}


def volumes(sidecars: Sequence[Sidecar]) -> list[dict[str, Any]]:
    """The pod's volumes that only sidecars mount; their names begin with the sidecar's."""
    made = []
    for sidecar in sidecars:
        made += storage.pod_volumes(_own(sidecar))
        for index, file in enumerate(sidecar.secret_files):
            items = [{"key": file.key, "path": file.key}]
            made.append({"name": _secret(sidecar, index), "secret": {"secretName": file.secret, "items": items}})
    return made


def _mounts(sidecar: Sidecar, defaults: PodDefaults) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = []
    if sidecar.shares_runtime_dir and defaults.execd_image is not None:
        mounts.append({"name": storage.BIN, "mountPath": RUNTIME_DIR})
    mounts += storage.mounts(_own(sidecar))
    for index, file in enumerate(sidecar.secret_files):
        mounts.append({"name": _secret(sidecar, index), "mountPath": file.path, "subPath": file.key, "readOnly": True})
    return mounts


def _own(sidecar: Sidecar) -> list[Volume]:
    return [replace(volume, name=f"{sidecar.name}-{volume.name}"[:63]) for volume in sidecar.volumes]


def _secret(sidecar: Sidecar, index: int) -> str:
    return f"{sidecar.name[:50]}-secret-{index}"


def _port(sidecar: Sidecar, port: int) -> dict[str, Any]:
    """The port whose readiness counts is a trusted sidecar's API."""
    named = sidecar.trusted and sidecar.ready is not None and sidecar.ready.port == port
    return {"containerPort": port, **({"name": f"{sidecar.name[:11]}-api"} if named else {})}


def _probe(ready: Probe) -> dict[str, Any]:
    headers = [{"name": name, "value": value} for name, value in ready.headers.items()]
    return {
        "httpGet": {"path": ready.path, "port": ready.port, "httpHeaders": headers},
        "periodSeconds": 1,
        "failureThreshold": max(1, int(ready.timeout_seconds)),
    }
