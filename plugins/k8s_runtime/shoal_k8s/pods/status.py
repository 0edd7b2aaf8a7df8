"""What a pod says of its sandbox: phase, reason, message. Pure functions of the pod as it was last seen."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from shoal.models.workload import Phase
from shoal_k8s.pods import placement
from shoal_k8s.pods.objects import ContainerStatus, Pod

MAIN: Final = "sandbox"
HOPELESS: Final = frozenset(
    {
        "CrashLoopBackOff",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Reasons of a waiting container after which it will not start by itself soon."""


class Verdict(Struct, frozen=True):
    """``hopeless``: a create need not wait any longer."""

    phase: Phase
    reason: str
    message: str
    hopeless: bool = False


def judge(pod: Pod) -> Verdict:
    """The pod's phase as sandboxes know it."""
    status = pod.status
    if status.phase == "Succeeded":
        return Verdict(Phase.EXITED, "POD_SUCCEEDED", "The sandbox's command ended with exit code 0.")
    if status.phase == "Failed":
        return _failed(pod)
    stuck = _stuck(pod)
    if stuck is not None:
        return stuck
    main = next((each for each in status.container_statuses if each.name == MAIN), None)
    if main is not None and main.state.terminated is not None:
        return _ended(main)
    ready = status.condition("Ready")
    if status.phase == "Running" and ready is not None and ready.status == "True" and status.pod_ip:
        return Verdict(Phase.RUNNING, "POD_READY", "The pod is ready.")
    return _pending(pod)


def _failed(pod: Pod) -> Verdict:
    """A pod that ended: by its command, or by the node (evicted, out of memory)."""
    main = next((each for each in pod.status.container_statuses if each.name == MAIN), None)
    if main is not None and main.state.terminated is not None:
        return _ended(main)
    stuck = _stuck(pod)
    if stuck is not None:
        return stuck
    reason = pod.status.reason or "POD_FAILED"
    return Verdict(Phase.FAILED, reason, pod.status.message or "The pod failed.", hopeless=True)


def _ended(main: ContainerStatus) -> Verdict:
    ended = main.state.terminated
    assert ended is not None  # noqa: S101 - the callers looked
    if ended.exit_code == 0:
        return Verdict(Phase.EXITED, "POD_SUCCEEDED", "The sandbox's command ended with exit code 0.")
    why = f" ({ended.reason})" if ended.reason and ended.reason != "Error" else ""
    said = f"The sandbox's command ended with exit code {ended.exit_code}{why}."
    return Verdict(Phase.FAILED, "POD_FAILED", said, hopeless=True)


def _stuck(pod: Pod) -> Verdict | None:
    """The first container that will not start, with the engine's own words."""
    for container in [*pod.status.init_container_statuses, *pod.status.container_statuses]:
        waiting, ended = container.state.waiting, container.state.terminated
        if waiting is not None and waiting.reason in HOPELESS:
            said = f"Container {container.name!r} cannot start: {waiting.message or waiting.reason}"
            return Verdict(Phase.FAILED, waiting.reason, said, hopeless=True)
        if container.name != MAIN and ended is not None and ended.exit_code != 0:
            why = f": {ended.message.strip()}" if ended.message else "."
            said = f"Container {container.name!r} ended with exit code {ended.exit_code}{why}"
            return Verdict(Phase.FAILED, "SIDECAR_FAILED", said, hopeless=True)
    return None


def _pending(pod: Pod) -> Verdict:
    scheduled = pod.status.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        said = scheduled.message or "The pod is not scheduled yet."
        if placement.hopeless(pod, said):
            return Verdict(Phase.FAILED, "POD_PLATFORM_UNSCHEDULABLE", said, hopeless=True)
        return Verdict(Phase.PENDING, "UNSCHEDULABLE", said)
    for container in [*pod.status.init_container_statuses, *pod.status.container_statuses]:
        waiting = container.state.waiting
        if waiting is not None and waiting.reason not in (None, "PodInitializing", "ContainerCreating"):
            return Verdict(Phase.PENDING, "POD_STARTING", f"Container {container.name!r}: {waiting.reason}.")
    if scheduled is not None and scheduled.status == "True":
        return Verdict(Phase.PENDING, "POD_SCHEDULED", "The pod is scheduled; its containers are starting.")
    return Verdict(Phase.PENDING, "POD_PENDING", "The pod waits to be scheduled.")
