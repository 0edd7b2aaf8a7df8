"""Whether a running sandbox can be captured at all (docs/wire/kubernetes.md section 17)."""

from __future__ import annotations

from typing import Final

from shoal.errors import Conflict
from shoal_k8s.api import KubeApiError, KubeClient
from shoal_k8s.api.objects import KubeStruct
from shoal_k8s.pods.objects import RUNTIME_CLASSES, Pod

PREFLIGHT_FAILED: Final = "SNAPSHOT::RUNTIME_PREFLIGHT_FAILED"
UNSUPPORTED: Final = "SNAPSHOT::UNSUPPORTED_RUNTIME"


class RuntimeClass(KubeStruct):
    handler: str = ""


async def check(client: KubeClient, pod: Pod | None) -> None:
    """Raise Conflict unless the pod runs, on a container runtime whose file systems can be committed."""
    if pod is None or pod.status.phase != "Running" or pod.metadata.deletion_timestamp is not None:
        raise Conflict(PREFLIGHT_FAILED, "The sandbox has no running pod to capture.")
    name = pod.spec.runtime_class_name
    if name is None:
        return
    try:
        handler = (await client.get(RUNTIME_CLASSES, None, name, RuntimeClass)).handler
    except KubeApiError as error:
        raise Conflict(PREFLIGHT_FAILED, f"The RuntimeClass {name!r} of its pod cannot be read.") from error
    if handler == "runsc" or handler.startswith("runsc-"):
        raise Conflict(UNSUPPORTED, "A sandbox on gVisor cannot be captured.")
