"""What a pod says of its sandbox: phase, reason, message. Pure functions of the pod as it was last seen.

One rule for all providers: a sandbox ends with its command, or with a sidecar that must not end, whichever is first and
whatever the exit code. It stays ended, unless the pod's restart policy has its command started again: then it is on its
way (`Phase.RESTARTING`) until it runs.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from shoal.models.workload import Phase
from shoal_k8s import deletion
from shoal_k8s.api import Meta
from shoal_k8s.pods import placement
from shoal_k8s.pods.objects import ContainerStatus, Pod, Terminated

MAIN: Final = "sandbox"
FILTER: Final = "egress"
"""The sidecar that filters, in every pod that has a network policy."""
BACK_OFF: Final = "CrashLoopBackOff"
HOPELESS: Final = frozenset(
    {
        BACK_OFF,
        "ErrImageNeverPull",
        "ImageInspectError",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Reasons of a waiting container after which it will not start by itself soon."""
_SIGNALLED: Final = (137, 143)
"""Exit codes of a command that somebody ended."""
PULLING: Final = frozenset({"ErrImagePull", "ImagePullBackOff"})
"""Reasons after which the kubelet pulls the image again, in ten seconds at first."""
_DEFINITE: Final = re.compile(
    r"not found|manifest unknown|does not exist|denied|no basic auth|unauthori[sz]ed|invalid reference", re.IGNORECASE
)


def refused_image(said: str) -> bool:
    """Whether the registry answered that it has no such image, or not for us; anything else may pass."""
    return _DEFINITE.search(said) is not None


class PodVerdict(Struct, frozen=True):
    """``hopeless``: a create need not wait any longer."""

    phase: Phase
    reason: str
    message: str
    hopeless: bool = False


def stopping(meta: Meta) -> PodVerdict | None:
    """Of a sandbox whose object somebody else deleted, and something still holds."""
    held = deletion.holders(meta)
    said = f"It was deleted on the cluster, and is held by the finalizer {', '.join(held)}."
    return PodVerdict(Phase.STOPPING, "DELETING", said) if held else None


def judge(pod: Pod) -> PodVerdict:
    """The pod's phase as sandboxes know it."""
    if pod.metadata.deletion_timestamp is not None:
        return PodVerdict(
            Phase.RESTARTING, "POD_REPLACED", "The sandbox's pod is going away; another one is to follow."
        )
    over = _over(pod)
    if over is not None:
        return over
    again = _again(pod)
    if again is not None:
        return again
    stuck = _stuck(pod)
    if stuck is not None:
        return stuck
    ready = pod.status.condition("Ready")
    if pod.status.phase == "Running" and ready is not None and ready.status == "True" and pod.status.pod_ip:
        return PodVerdict(Phase.RUNNING, "POD_READY", "The pod is ready.")
    return _pending(pod)


def services(pod: Pod) -> frozenset[str]:
    """The names of its sidecars that must not end."""
    return frozenset(
        container.name
        for container in pod.spec.containers
        if container.name != MAIN and (container.name == FILTER or container.readiness_probe is not None)
    )


def is_over(pod: Pod) -> bool:
    """Whether its sandbox has ended although some of its containers run on."""
    runs = pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None
    return runs and pod.spec.active_deadline_seconds is None and _over(pod) is not None


def _over(pod: Pod) -> PodVerdict | None:
    """How it ended, by what ended first; None if it did not, or will be started again."""
    main = _main(pod)
    ended = None if main is None else main.state.terminated
    if ended is not None and _restarts(pod, ended):
        ended = None
    broken = _broken_service(pod)
    if broken is not None and (ended is None or _first(broken.state.terminated, ended)):
        return _sidecar_ended(broken)
    if ended is not None:
        return _ended(ended)
    if pod.status.phase == "Succeeded":
        return PodVerdict(Phase.EXITED, "POD_SUCCEEDED", "The sandbox's command ended with exit code 0.")
    if pod.status.phase == "Failed":
        stuck = _stuck(pod)
        if stuck is not None and stuck.hopeless:
            return stuck
        reason = pod.status.reason or "POD_FAILED"
        return PodVerdict(Phase.FAILED, reason, pod.status.message or "The pod failed.", hopeless=True)
    return None


def _broken_service(pod: Pod) -> ContainerStatus | None:
    needed = services(pod)
    over = (each for each in pod.status.container_statuses if each.name in needed and each.state.terminated is not None)
    return next(over, None)


def _first(one: Terminated | None, other: Terminated) -> bool:
    """Whether ``one`` ended before ``other``; of one second, a command that was ended by a signal was not first."""
    mine, its = (one.finished_at if one is not None else None) or "", other.finished_at or ""
    return mine < its or (mine == its and other.exit_code in _SIGNALLED)


def _restarts(pod: Pod, ended: Terminated) -> bool:
    """Whether the kubelet will start a container again that ended so."""
    if pod.status.phase in ("Succeeded", "Failed") or pod.spec.active_deadline_seconds is not None:
        return False
    policy = pod.spec.restart_policy
    return policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)


def _again(pod: Pod) -> PodVerdict | None:
    """The command ended and will be started again; after too many times, not before long."""
    main = _main(pod)
    if main is None:
        return None
    waiting, ended = main.state.waiting, main.state.terminated or main.last_state.terminated
    if main.state.terminated is None and (waiting is None or waiting.reason != BACK_OFF):
        return None
    code = "" if ended is None else f" with exit code {ended.exit_code}"
    policy = pod.spec.restart_policy
    said = f"The sandbox's command ended{code} and is started again; its pod's restart policy is {policy}."
    return PodVerdict(
        Phase.RESTARTING, "RESTARTING" if waiting is None else BACK_OFF, said, hopeless=waiting is not None
    )


def _main(pod: Pod) -> ContainerStatus | None:
    return next((each for each in pod.status.container_statuses if each.name == MAIN), None)


def _ended(ended: Terminated) -> PodVerdict:
    if ended.exit_code == 0:
        return PodVerdict(Phase.EXITED, "POD_SUCCEEDED", "The sandbox's command ended with exit code 0.")
    why = f" ({ended.reason})" if ended.reason and ended.reason != "Error" else ""
    said = f"The sandbox's command ended with exit code {ended.exit_code}{why}."
    return PodVerdict(Phase.FAILED, "POD_FAILED", said, hopeless=True)


def _sidecar_ended(container: ContainerStatus) -> PodVerdict:
    ended = container.state.terminated
    assert ended is not None  # noqa: S101 - the callers looked
    why = f": {ended.message.strip()}" if ended.message else "."
    said = f"Container {container.name!r} ended with exit code {ended.exit_code}{why}"
    return PodVerdict(Phase.FAILED, "SIDECAR_FAILED", said, hopeless=True)


def _stuck(pod: Pod) -> PodVerdict | None:
    """The first container that will not start, with the engine's own words."""
    for container in [*pod.status.init_container_statuses, *pod.status.container_statuses]:
        waiting, ended = container.state.waiting, container.state.terminated
        if waiting is not None and waiting.reason in PULLING:
            said = f"The image of container {container.name!r} cannot be pulled: {waiting.message or waiting.reason}"
            return PodVerdict(Phase.PENDING, waiting.reason, said)
        if waiting is not None and waiting.reason in HOPELESS:
            said = f"Container {container.name!r} cannot start: {waiting.message or waiting.reason}"
            return PodVerdict(Phase.FAILED, waiting.reason, said, hopeless=True)
        if container.name != MAIN and ended is not None and ended.exit_code != 0:
            return _sidecar_ended(container)
    return None


def _pending(pod: Pod) -> PodVerdict:
    scheduled = pod.status.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        said = scheduled.message or "The pod is not scheduled yet."
        if placement.hopeless(pod, said):
            return PodVerdict(Phase.FAILED, "POD_PLATFORM_UNSCHEDULABLE", said, hopeless=True)
        return PodVerdict(Phase.PENDING, "UNSCHEDULABLE", said)
    for container in [*pod.status.init_container_statuses, *pod.status.container_statuses]:
        waiting = container.state.waiting
        if waiting is not None and waiting.reason not in (None, "PodInitializing", "ContainerCreating"):
            return PodVerdict(Phase.PENDING, "POD_STARTING", f"Container {container.name!r}: {waiting.reason}.")
    if scheduled is not None and scheduled.status == "True":
        return PodVerdict(Phase.PENDING, "POD_SCHEDULED", "The pod is scheduled; its containers are starting.")
    return PodVerdict(Phase.PENDING, "POD_PENDING", "The pod waits to be scheduled.")
