"""Fields of a SandboxSnapshot, and the image that a finished one stands for (docs/wire/kubernetes.md section 17)."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final

from msgspec import field

from shoal.errors import EngineFailure
from shoal_k8s import names
from shoal_k8s.api import Meta, Resource
from shoal_k8s.api.objects import KubeStruct
from shoal_k8s.pods.objects import Condition
from shoal_k8s.pods.status import MAIN

SNAPSHOTS: Final = Resource("sandbox.opensandbox.io", "v1alpha1", "sandboxsnapshots")
KIND: Final = "SandboxSnapshot"
SCOPE: Final = f"{names.PREFIX}snapshot-scope"
PUBLIC: Final = "public"
SOURCE: Final = f"{names.PREFIX}source-sandbox-id"
NAME: Final = f"{names.PREFIX}snapshot-name"
"""Annotation: what the caller called it. `names.CREATED` stands beside it."""
FAILED: Final = "SNAPSHOT::RUNTIME_FAILED"
_ROOTFS: Final = "rootfs-v1"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class CapturedContainer(KubeStruct):
    container_name: str = ""
    image_uri: str = ""


class SnapshotSpec(KubeStruct):
    sandbox_name: str = ""


class SnapshotObjectStatus(KubeStruct):
    phase: str | None = None
    format: str | None = None
    conditions: list[Condition] = []
    containers: list[CapturedContainer] = []


class SnapshotObject(KubeStruct):
    metadata: Meta
    spec: SnapshotSpec = field(default_factory=SnapshotSpec)
    status: SnapshotObjectStatus = field(default_factory=SnapshotObjectStatus)


def object_name(snapshot_id: str) -> str:
    """``osb-snap-`` and the 32 hex digits of the id, or of its digest where it is no UUID."""
    try:
        digits = uuid.UUID(snapshot_id).hex
    except ValueError:
        digits = hashlib.sha256(snapshot_id.encode()).hexdigest()[:32]
    return f"osb-snap-{digits}"


def image_of(thing: SnapshotObject) -> str | None:
    """The image to restore from; None while it is being made.

    Raises EngineFailure, in the controller's words, for one that failed or that no pod can be made from.
    """
    status = thing.status
    if status.phase == "Failed":
        raise EngineFailure(FAILED, _why(status.conditions))
    if status.phase != "Succeed":
        return None
    if status.format not in (None, "", _ROOTFS):
        raise EngineFailure(FAILED, f"A snapshot of the format {status.format!r} cannot be restored from here.")
    return _main(status.containers).image_uri


def _main(containers: list[CapturedContainer]) -> CapturedContainer:
    """The sandbox's own container among those that were captured, its sidecars included."""
    found = [each for each in containers if each.image_uri]
    own = [each for each in found if each.container_name == MAIN] or found
    if not own:
        raise EngineFailure(FAILED, "The controller reports no image of the snapshot.")
    if len(own) > 1:
        raise EngineFailure(FAILED, f"The snapshot has several images, and none of a container {MAIN!r}.")
    return own[0]


def restorable(reference: str) -> str:
    """The image of a snapshot as some registry serves it.

    References that were stored as ``imageUri@imageDigest`` name a digest that no registry knows: that of the image's
    configuration. A reference with both a tag and a digest is none of a caller's, and is read without the digest.
    """
    tagged, _, digest = reference.partition("@")
    return tagged if _DIGEST.fullmatch(digest) and ":" in tagged.rpartition("/")[2] else reference


def _why(conditions: list[Condition]) -> str:
    failed = next((each for each in conditions if each.type == "Failed" and each.status == "True"), None)
    if failed is None:
        return "The controller reports a failure without a reason."
    return ": ".join(part for part in (failed.reason, failed.message) if part) or "The controller gives no reason."
