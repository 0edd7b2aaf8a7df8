"""Volumes and mounts of a sandbox's pod (docs/wire/kubernetes.md section 9)."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.requests import ClaimVolume, Volume

BIN: Final = "opensandbox-bin"
ISOLATION: Final = "isolation-upper"
RESERVED: Final = frozenset({BIN, ISOLATION, "opensandbox-egress-upstream-extra-ca"})


def check(volumes: list[Volume], allowed_host_paths: list[str]) -> None:
    """Raise InvalidRequest for a volume that no pod may have; looks at texts only."""
    claims: dict[str, ClaimVolume] = {}
    for volume in volumes:
        if volume.name in RESERVED:
            raise InvalidRequest(
                codes.INVALID_PARAMETER, f"The volume name {volume.name!r} is taken by the sandbox's own."
            )
        if volume.host is not None:
            check_host(volume.host.path, allowed_host_paths)
        if volume.pvc is not None:
            _check_claim(claims.setdefault(volume.pvc.claim_name, volume.pvc), volume.pvc)


def check_host(path: str, allowed: Sequence[str]) -> None:
    """Raise InvalidRequest for a path of the node that may not be mounted."""
    if "//" in path or ".." in path.split("/") or (path.endswith("/") and path != "/"):
        raise InvalidRequest(
            "VOLUME::INVALID_HOST_PATH", "A host path is absolute, without '..', '//' or a slash at its end."
        )
    if not any(path == prefix.rstrip("/") or path.startswith(prefix.rstrip("/") + "/") for prefix in allowed):
        raise InvalidRequest("VOLUME::HOST_PATH_NOT_ALLOWED", "The host path lies outside storage.allowed_host_paths.")


def _check_claim(first: ClaimVolume, other: ClaimVolume) -> None:
    flags = (first.create_if_not_exists, first.delete_on_sandbox_termination)
    if flags != (other.create_if_not_exists, other.delete_on_sandbox_termination):
        said = f"The mounts of claim {first.claim_name!r} disagree on createIfNotExists or deleteOnSandboxTermination."
        raise InvalidRequest(codes.INVALID_PARAMETER, said)


def pod_volumes(volumes: list[Volume]) -> list[dict[str, Any]]:
    """The pod's volumes; mounts of one claim share the first one's, read-only only if all are."""
    made: list[dict[str, Any]] = []
    for name, group in _grouped(volumes).items():
        first = group[0]
        if first.pvc is not None:
            claim = {"claimName": first.pvc.claim_name, "readOnly": all(volume.read_only for volume in group)}
            made.append({"name": name, "persistentVolumeClaim": claim})
        elif first.host is not None:
            made.append({"name": name, "hostPath": {"path": _host_path(first), "type": "DirectoryOrCreate"}})
    return made


def mounts(volumes: list[Volume]) -> list[dict[str, Any]]:
    """The mounts of the sandbox's own container."""
    names = {volume.name: name for name, group in _grouped(volumes).items() for volume in group}
    return [
        {
            "name": names[volume.name],
            "mountPath": volume.mount_path,
            **({"readOnly": True} if volume.read_only else {}),
            **({"subPath": volume.sub_path} if volume.sub_path and volume.pvc is not None else {}),
        }
        for volume in volumes
    ]


def claims_to_make(volumes: list[Volume]) -> list[ClaimVolume]:
    """Each claim once, if it is to be made where it is absent."""
    first = {volume.pvc.claim_name: volume.pvc for volume in reversed(volumes) if volume.pvc is not None}
    return [claim for claim in first.values() if claim.create_if_not_exists]


def _grouped(volumes: list[Volume]) -> dict[str, list[Volume]]:
    """Volumes by the name of the pod volume that they share."""
    groups: dict[str, list[Volume]] = {}
    names: dict[str, str] = {}
    for volume in volumes:
        name = volume.name if volume.pvc is None else names.setdefault(volume.pvc.claim_name, volume.name)
        groups.setdefault(name, []).append(volume)
    return groups


def _host_path(volume: Volume) -> str:
    assert volume.host is not None  # noqa: S101 - the caller looked
    return posixpath.join(volume.host.path, volume.sub_path) if volume.sub_path else volume.host.path
